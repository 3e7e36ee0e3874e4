//! Renders every error of this room, so that a reader sees all messages in one file.

use std::io;
use std::path::PathBuf;

use super::error::{ConfigError, InvalidSettings};
use super::{LauncherError, ProfileError, Settings, UnknownLauncher, UnknownProfile};
use crate::mission::hint::with_hints;
use crate::mission::testing::{MessageRow, all_messages, row, variant_of};

#[test]
fn every_message_is_as_recorded() {
    let texts = [
        "max_workers = many",
        "max_workers = \"6\"",
        "max_worker = 6",
        "[backends.codx]\nprogram = \"x\"",
        "[[custom]]\nname = \"a\"\nprogram = \"x\"\n[[custom]]\nname = \"a\"\nprogram = \"y\"",
        "[repositories.\"rel/x\"]\nsetup_command = \"make\"",
        "stall_minutes = -1",
        "question_minutes = -1",
        "setup_timeout_minutes = -1",
        "seed = [\"../cache\"]",
        "prune = [\"../target\"]",
        "confine_writable = [\"../cache\"]",
        "confine_unreadable = [\"~/.ssh/*\"]",
        "integration_branch = \"\"",
        "commit_name = \"A\"",
        "commit_message = \"{titel}\"",
        "prompt_frame = \"Be nice.\"",
        "prompt_frame = \"{prompt} {branch}\"",
        "[boss]\nmax_cost_usd = -1.0",
        "[profiles.cheap]\ntitle = \"A\"",
    ];
    let profiles = [
        "[profiles.\"a b\"]",
        "[profiles.cheap]\npermissions = \"full\"",
        "[profiles.cheap]\nbackend = \"codex\"\nmodel_override = \"sonnet\"",
        "[profiles.cheap]\nbackend = \"codx\"",
    ];
    let fields = [
        "verify_command = \" \"".to_owned(),
        format!("model_override = {:?}", "x".repeat(201)),
        "model_effort = \"a\\nb\"".to_owned(),
        "setup_command = \"a\\u0000b\"".to_owned(),
        "model_override = \"-x\"".to_owned(),
        "timeout_minutes = 0".to_owned(),
        "max_cost_usd = -1.0".to_owned(),
    ];
    let launchers = [
        "[launchers.local]",
        "[launchers.\"a b\"]",
        "memory = \"8 gigabytes\"",
        "program = \"bin/orchestrator-boss\"",
        "args = [\"--time=5\"]",
        "args = [\"-p\", \"cpu\"]",
        "prologue = [\"#SBATCH --array=1-9\"]",
        "pass_env = [\"HTTPS_PROXY=x\"]",
        "cpus = 0",
    ];
    let mut rows = vec![
        row(ConfigError::Read { path: path(), source: io::ErrorKind::PermissionDenied.into() }),
        row(ConfigError::Invalid { path: path(), source: InvalidSettings::EmptyBranch }),
        row(ConfigError::Variable { found: "ORCHESTRATOR_WAIT".into(), meant: "ORCHESTRATOR_WAIT_SECONDS" }),
        row(ConfigError::NotANumber { variable: "ORCHESTRATOR_WAIT_SECONDS", value: "long".into() }),
        row(ConfigError::NotAnAmount { variable: "ORCHESTRATOR_BOSS_MAX_COST_USD", value: "nan".into() }),
    ];
    rows.extend(texts.map(invalid));
    rows.push(invalid(profiles[0]));
    rows.extend(profiles.map(|text| {
        in_profile(text, |error| match error {
            // These variants only wrap an error of another type.
            ProfileError::Refused(_) | ProfileError::Field(_) => "InvalidSettings::Profile".to_owned(),
            own => variant_of(own),
        })
    }));
    rows.extend(fields.map(|text| {
        in_profile(&format!("[profiles.cheap]\n{text}"), |error| match error {
            ProfileError::Field(field) => variant_of(field),
            other => variant_of(other),
        })
    }));
    rows.push(invalid("[launchers.local]\nkind = \"slurm\""));
    rows.push(invalid("verify_on = \"cluster\""));
    rows.extend(launchers.map(in_launcher));
    let launcher = UnknownLauncher { name: "gpu".into(), known: vec!["local".into(), "cluster".into()], meant: None };
    rows.push(row(launcher));
    let known = || vec!["careful".to_owned(), "cheap".to_owned()];
    rows.push(row(UnknownProfile { name: "chep".into(), known: known(), meant: Some("cheap".into()) }));
    insta::assert_snapshot!(all_messages(&rows, "src/config"));
}

fn in_profile(text: &str, name: impl Fn(&ProfileError) -> String) -> MessageRow {
    match Settings::parse(text).expect_err("an invalid text") {
        InvalidSettings::Profile { name: profile, source } => {
            let variant = name(&source);
            let source = InvalidSettings::Profile { name: profile, source };
            (variant, with_hints(&ConfigError::Invalid { path: path(), source }))
        }
        other => panic!("{other}"),
    }
}

fn in_launcher(text: &str) -> MessageRow {
    let section = if text.starts_with('[') { text } else { &format!("[launchers.cluster]\n{text}") };
    match Settings::parse(&format!("{section}\nkind = \"slurm\"")).expect_err("an invalid text") {
        InvalidSettings::Launcher { name, source } => {
            let variant = match &*source {
                LauncherError::Field(field) => variant_of(field),
                own => variant_of(own),
            };
            (
                variant,
                with_hints(&ConfigError::Invalid { path: path(), source: InvalidSettings::Launcher { name, source } }),
            )
        }
        other => panic!("{other}"),
    }
}

fn path() -> PathBuf {
    "/home/user/config.toml".into()
}

fn invalid(text: &str) -> MessageRow {
    let source = Settings::parse(text).expect_err("an invalid text");
    (variant_of(&source), with_hints(&ConfigError::Invalid { path: path(), source }))
}
