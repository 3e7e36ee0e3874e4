//! The commands by which each CLI reports its version and login, and the parsing of their output. The commands run
//! elsewhere. Nothing here reads a key, only whether a variable is set.

use serde_json::Value;

use super::lines::object;
use super::{LoginFile, ModelService, OwnService, Probe};

/// Parses the output of `--version`: `2.1.9 (Claude Code)`, `codex-cli 0.9.0`, `0.9.0`.
pub fn read_version(stdout: &str) -> Option<String> {
    stdout
        .split_whitespace()
        .map(|word| word.strip_prefix('v').unwrap_or(word).trim_end_matches('.'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .map(str::to_owned)
}

/// Describes a version that was not tested. `None` for the tested version, and if no version was tested.
pub fn untested(version: &str, tested: &str) -> Option<String> {
    let number =
        |version: &str| version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect::<Vec<u64>>();
    if tested.is_empty() || version == tested {
        return None;
    }
    Some(if number(version) < number(tested) {
        format!("untested: older than the tested {tested}; update it if its workers fail at once")
    } else {
        format!("untested: newer than the tested {tested}; it most likely works")
    })
}

pub fn claude_code() -> Probe {
    Probe {
        version_args: args(&["--version"]),
        auth_args: Some(args(&["auth", "status"])),
        key_variables: args(&[
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_VERTEX",
        ]),
        login_files: vec![login_file(Some("CLAUDE_CONFIG_DIR"), ".claude", ".credentials.json")],
        install_command: "npm install -g @anthropic-ai/claude-code".into(),
        login_command: "claude auth login".into(),
        read_auth: read_claude_code,
        own_service: None,
        service: Some(ModelService { variable: "ANTHROPIC_BASE_URL", addresses: &["https://api.anthropic.com"] }),
        tested_version: tested_with("@anthropic-ai/claude-code"),
        is_from_documentation: false,
    }
}

pub fn codex() -> Probe {
    Probe {
        version_args: args(&["--version"]),
        auth_args: Some(args(&["login", "status"])),
        key_variables: args(&["CODEX_API_KEY"]),
        login_files: vec![login_file(Some("CODEX_HOME"), ".codex", "auth.json")],
        install_command: "npm install -g @openai/codex".into(),
        login_command: "codex login".into(),
        read_auth: read_codex,
        own_service: Some(OwnService {
            config: login_file(Some("CODEX_HOME"), ".codex", "config.toml"),
            is_used: names_a_provider,
            key_variable: key_of_provider,
            address: address_of_provider,
        }),
        // The first for a login with ChatGPT, the second for a key.
        service: Some(ModelService { variable: "", addresses: &["https://chatgpt.com", "https://api.openai.com"] }),
        tested_version: tested_with("@openai/codex"),
        is_from_documentation: false,
    }
}

pub fn gemini() -> Probe {
    Probe {
        version_args: args(&["--version"]),
        auth_args: None,
        // GOOGLE_GENAI_USE_GCA is no key: it only selects the login with a Google account.
        key_variables: args(&["GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI"]),
        login_files: vec![LoginFile {
            doubt: Some(
                "its Google login may be that of a private account (free, AI Pro, AI Ultra), which Gemini CLI refuses",
            ),
            ..login_file(None, ".gemini", "oauth_creds.json")
        }],
        install_command: "npm install -g @google/gemini-cli".into(),
        login_command: "set GEMINI_API_KEY, or run gemini and log in with a Standard or Enterprise licence".into(),
        read_auth: read_nothing,
        own_service: None,
        // The first for a key, the second for a login with Google.
        service: Some(ModelService {
            variable: "GOOGLE_GEMINI_BASE_URL",
            addresses: &["https://generativelanguage.googleapis.com", "https://cloudcode-pa.googleapis.com"],
        }),
        tested_version: tested_with("@google/gemini-cli"),
        is_from_documentation: false,
    }
}

pub fn opencode() -> Probe {
    Probe {
        version_args: args(&["--version"]),
        auth_args: Some(args(&["auth", "list"])),
        key_variables: args(&[
            "ANTHROPIC_API_KEY",
            "GEMINI_API_KEY",
            "GOOGLE_GENERATIVE_AI_API_KEY",
            "OPENAI_API_KEY",
            "OPENCODE_API_KEY",
            "OPENROUTER_API_KEY",
        ]),
        login_files: vec![login_file(Some("XDG_DATA_HOME"), ".local/share", "opencode/auth.json")],
        install_command: "npm install -g opencode-ai".into(),
        login_command: "opencode auth login".into(),
        read_auth: read_opencode,
        own_service: None,
        service: None,
        tested_version: tested_with("opencode-ai"),
        is_from_documentation: false,
    }
}

/// Returns `None`, for backends without a status command.
pub fn read_nothing(_stdout: &str, _exit_code: i32) -> Option<bool> {
    None
}

/// Parses `claude auth status`, which prints one JSON object over several lines, and exits with 0 or 1.
fn read_claude_code(stdout: &str, _exit_code: i32) -> Option<bool> {
    object(stdout.trim())?.get("loggedIn").and_then(Value::as_bool)
}

/// Evaluates `codex login status`, which exits with 0 if logged in and with 1 if not.
fn read_codex(_stdout: &str, exit_code: i32) -> Option<bool> {
    match exit_code {
        0 => Some(true),
        1 => Some(false),
        _ => None,
    }
}

/// Returns whether the user configured a provider with a key of its own, which `codex login status` does not report.
fn names_a_provider(config: &str) -> bool {
    toml::from_str(config).ok().and_then(|config| provider_of(&config)).is_some_and(|provider| provider != "openai")
}

/// Returns the variable that has the key of the provider that the user configured.
fn key_of_provider(config: &str) -> Option<String> {
    field_of_provider(config, "env_key")
}

fn address_of_provider(config: &str) -> Option<String> {
    field_of_provider(config, "base_url")
}

fn field_of_provider(config: &str, field: &str) -> Option<String> {
    let config: toml::Table = toml::from_str(config).ok()?;
    let provider = config.get("model_providers")?.get(provider_of(&config)?)?;
    Some(provider.get(field)?.as_str()?.to_owned())
}

fn provider_of(config: &toml::Table) -> Option<String> {
    let provider = |table: &toml::Table| table.get("model_provider").and_then(toml::Value::as_str).map(str::to_owned);
    let profile = config.get("profile").and_then(toml::Value::as_str).unwrap_or_default();
    let profile = config.get("profiles").and_then(|all| all.get(profile)?.as_table());
    profile.and_then(provider).or_else(|| provider(config))
}

/// Parses `opencode auth list`, which ends its lists with `2 credentials` and `1 environment variable`, between drawing
/// characters. Without credentials the login is unknown: a provider in the user's configuration may hold its own key.
fn read_opencode(stdout: &str, exit_code: i32) -> Option<bool> {
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let has_some = words.windows(2).any(|pair| {
        let counted = ["credential", "environment"].iter().any(|noun| pair[1].starts_with(noun));
        counted && pair[0].parse::<u32>().is_ok_and(|count| count > 0)
    });
    (exit_code == 0 && has_some).then_some(true)
}

/// Returns the version of an npm package that the tests with the real CLIs install.
fn tested_with(package: &str) -> String {
    let pins = object(include_str!("../../tests/real/package.json"));
    let version = pins.as_ref().and_then(|pins| pins["dependencies"][package].as_str());
    version.unwrap_or_default().to_owned()
}

fn args(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub fn login_file(variable: Option<&str>, default_folder: &str, file: &str) -> LoginFile {
    let variable = variable.map(str::to_owned);
    LoginFile { variable, default_folder: default_folder.into(), file: file.into(), doubt: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_each_cli_is_parsed() {
        for (printed, version) in [
            ("2.1.9 (Claude Code)\n", Some("2.1.9")),
            ("codex-cli 0.9.0\n", Some("0.9.0")),
            ("0.9.0\n", Some("0.9.0")),
            ("v1.9.9", Some("1.9.9")),
            ("GitHub Copilot CLI 1.0.102.\nRun 'copilot update'.\n", Some("1.0.102")),
            ("command not found", None),
        ] {
            assert_eq!(read_version(printed).as_deref(), version);
        }
    }

    #[test]
    fn tested_versions_are_those_of_the_real_tests() {
        for probe in [claude_code(), codex(), gemini(), opencode()] {
            let install = &probe.install_command;
            let version = &probe.tested_version;
            assert_eq!(read_version(version).as_ref(), Some(version), "no pin for: {install}");
        }
    }

    #[test]
    fn untested_version_is_reported() {
        let report = |version| untested(version, "2.1.300").map(|text| text[..15].to_owned());
        assert_eq!(report("2.1.300"), None);
        assert_eq!(report("2.1.99").as_deref(), Some("untested: older"));
        assert_eq!(report("2.10.0-beta.1").as_deref(), Some("untested: newer"));
        assert_eq!(untested("1.0", ""), None);
    }

    #[test]
    fn login_of_each_cli_is_parsed() {
        let claude = "{\n  \"loggedIn\": false,\n  \"authMethod\": \"none\"\n}\n";
        assert_eq!(read_claude_code(claude, 1), Some(false));
        assert_eq!(read_claude_code(r#"{"loggedIn":true}"#, 0), Some(true));
        assert_eq!(read_claude_code("unknown command", 1), None);
        assert_eq!(read_codex("Not logged in\n", 1), Some(false));
        assert_eq!(read_codex("", 0), Some(true));
        assert_eq!(read_codex("", 2), None);
        assert_eq!(read_opencode("┌  Credentials ~/.local/share/opencode/auth.json\n│\n└  0 credentials\n", 0), None);
        assert_eq!(read_opencode("└  2 credentials\n", 0), Some(true));
        assert_eq!(read_opencode("└  0 credentials\n┌  Environment\n└  1 environment variable\n", 0), Some(true));
    }

    #[test]
    fn other_provider_of_codex_is_recognised() {
        for (config, named) in [
            ("model_provider = 'mine'", true),
            ("model_provider = 'openai'", false),
            ("model = 'x'", false),
            ("profile = 'p'\n[profiles.p]\nmodel_provider = 'mine'\n[profiles.q]", true),
            ("[profiles.p]\nmodel_provider = 'mine'", false),
            ("[", false),
        ] {
            assert_eq!(names_a_provider(config), named, "{config}");
        }
    }

    #[test]
    fn key_of_another_provider_is_found() {
        let key = |selected| {
            key_of_provider(&format!("{selected}\n[model_providers.mine]\nenv_key = 'K'\n[model_providers.other]"))
        };
        assert_eq!(key("model_provider = 'mine'").as_deref(), Some("K"));
        assert_eq!(
            [key("model_provider = 'other'"), key("model_provider = 'openai'"), key(""), key("[")],
            [const { None }; 4]
        );
    }
}
