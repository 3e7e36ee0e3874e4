//! The names under which the user or the project has registered this server with a CLI, so that a worker of that CLI
//! does not start it again. The workers of most CLIs start no MCP servers at all. Those of the CLIs below get a list of
//! servers to leave out; a superfluous name in it does no harm. A registration that is missed here does none either: a
//! server below a worker refuses to manage workers.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::mission::id::BackendName;

pub(super) fn own(backend: &BackendName, directory: &Path) -> Vec<String> {
    let mut names = match backend.as_str() {
        "codex" => names_in(&codex_files(directory), in_toml),
        "opencode" | "opencode-acp" => names_in(&opencode_files(directory), |text| in_json(text, "mcp")),
        "kilo" => names_in(&kilo_files(), |text| in_json(text, "mcp")),
        "copilot" => names_in(&copilot_files(), |text| in_json(text, "mcpServers")),
        _ => Vec::new(),
    };
    names.sort();
    names.dedup();
    names
}

fn names_in(files: &[PathBuf], read: fn(&str) -> Option<Vec<String>>) -> Vec<String> {
    files.iter().filter_map(|file| read(&fs::read_to_string(file).ok()?)).flatten().collect()
}

fn codex_files(directory: &Path) -> Vec<PathBuf> {
    let user = env::var_os("CODEX_HOME").map(PathBuf::from).or_else(|| below_home(".codex"));
    let project = directory.ancestors().map(|folder| folder.join(".codex"));
    user.into_iter().chain(project).map(|folder| folder.join("config.toml")).collect()
}

/// Returns the files that OpenCode reads.
fn opencode_files(directory: &Path) -> Vec<PathBuf> {
    let user = user_configuration("opencode");
    let named = env::var_os("OPENCODE_CONFIG_DIR").map(PathBuf::from);
    let project = directory.ancestors().flat_map(|folder| [folder.to_owned(), folder.join(".opencode")]);
    let folders = user.into_iter().chain(named).chain(project);
    let files = folders.flat_map(|folder| ["config.json", "opencode.json", "opencode.jsonc"].map(|it| folder.join(it)));
    files.chain(env::var_os("OPENCODE_CONFIG").map(PathBuf::from)).collect()
}

/// Returns the user's files of Kilo, which have the format of OpenCode. Those of a project are not searched.
fn kilo_files() -> Vec<PathBuf> {
    user_configuration("kilo")
        .into_iter()
        .flat_map(|folder| ["kilo.json", "kilo.jsonc"].map(|it| folder.join(it)))
        .collect()
}

fn copilot_files() -> Vec<PathBuf> {
    let folder = env::var_os("COPILOT_HOME").map(PathBuf::from).or_else(|| below_home(".copilot"));
    folder.into_iter().map(|folder| folder.join("mcp-config.json")).collect()
}

fn user_configuration(program: &str) -> Option<PathBuf> {
    let folder = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| below_home(".config"));
    Some(folder?.join(program))
}

fn below_home(folder: &str) -> Option<PathBuf> {
    Some(PathBuf::from(env::var_os("HOME")?).join(folder))
}

fn in_toml(config: &str) -> Option<Vec<String>> {
    let config: Value = toml::from_str(config).ok()?;
    let table = |name: &str| config.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut servers = table("mcp_servers");
    // A server with an address is not started and has no command, and Codex itself refuses other names.
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    servers.retain(|name, server| server.get("command").is_some() && is_plain(name));
    // Our plugin has the server under the same name. An entry of this name replaces that of the plugin.
    let is_plugin = |name: &String| name.split('@').next() == Some(env!("CARGO_PKG_NAME"));
    let plugin = table("plugins").keys().any(is_plugin).then(|| env!("CARGO_PKG_NAME").to_owned());
    Some(ours(&servers).into_iter().chain(plugin).collect())
}

fn in_json(config: &str, servers: &str) -> Option<Vec<String>> {
    let config: Value = jsonc_parser::parse_to_serde_value(config, &Default::default()).ok()?;
    Some(ours(config.get(servers)?.as_object()?))
}

/// Returns whether an entry starts our program, by its name or its command.
fn ours(servers: &Map<String, Value>) -> Vec<String> {
    let named = |text: &str| text.contains(env!("CARGO_PKG_NAME"));
    let ours = servers.iter().filter(|(name, server)| named(name) || named(&server.to_string()));
    ours.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_are_known_by_the_programs_name() {
        let codex = r#"
            [mcp_servers.boss]
            command = "/opt/orchestrator-boss"
            [mcp_servers.orchestrator-boss]
            command = "run-it"
            [mcp_servers.far]
            url = "https://localhost/orchestrator-boss"
            [mcp_servers.other]
            command = "other"
        "#;
        assert_eq!(in_toml(codex).unwrap(), ["boss", "orchestrator-boss"]);
        let plugins = "[plugins.'orchestrator-boss@here']\nenabled = true\n[plugins.'other@here']\nenabled = true\n";
        assert_eq!(in_toml(plugins).unwrap(), ["orchestrator-boss"]);
        let opencode = r#"{
            // The "boss" is started by
            "mcp": {
                "boss": {"type": "local", "command": ["npx", "orchestrator-boss"], /* "off": */},
                "other": {"type": "local", "command": ["other", "a\"//b"]},
            },
        }"#;
        assert_eq!(in_json(opencode, "mcp").unwrap(), ["boss"]);
        let copilot = r#"{"mcpServers": {"boss": {"command": "orchestrator-boss"}, "other": {"command": "x"}}}"#;
        assert_eq!(in_json(copilot, "mcpServers").unwrap(), ["boss"]);
        assert_eq!((in_toml("["), in_json("{", "mcp"), in_json("{}", "mcp")), (None, None, None));
    }

    #[test]
    fn project_is_searched_up_to_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        fs::create_dir(folder.path().join(".codex")).unwrap();
        fs::write(folder.path().join(".codex/config.toml"), "[mcp_servers.x]\ncommand = 'orchestrator-boss'\n")
            .unwrap();
        fs::write(folder.path().join("a/opencode.json"), r#"{"mcp": {"orchestrator-boss": {}}}"#).unwrap();
        assert!(own(&"codex".into(), &below).contains(&"x".to_owned()));
        assert!(own(&"opencode".into(), &below).contains(&"orchestrator-boss".to_owned()));
        assert_eq!(own(&"gemini".into(), &below), [""; 0]);
    }
}
