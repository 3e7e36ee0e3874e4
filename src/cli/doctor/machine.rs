//! Checks the resources of this machine and the state directory.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::tz::TimeZone;
use rustix::fs::{Access, access};

use super::CheckContext;
use super::check::Finding;
use crate::attempt::notify_failure::NotifyFailure;
use crate::attempt::state_dir::state_file;
use crate::cli::shell::quoted;
use crate::cli::terminal::bytes;
use crate::config::{Settings, default_path};
use crate::files;
use crate::mission::entry::FORMAT;
use crate::process;

/// Free files below which there is a warning. The server needs about 12 for each worker.
const FEW_FILES: u64 = 256;

pub fn settings(context: &CheckContext) -> Finding {
    const NAME: &str = "settings";
    if let Some(why) = &context.settings_error {
        let check = Finding::bad(NAME, why).stops_all();
        return match context.named_settings.clone().or_else(default_path).filter(|path| path.exists()) {
            Some(path) => check.fix(edit(&path)),
            None => check,
        };
    }
    match context.named_settings.clone().or_else(default_path) {
        Some(path) if path.exists() => Finding::ok(NAME, path.display().to_string()),
        Some(path) => Finding::ok(NAME, format!("none, so the defaults apply ({} would be read)", path.display())),
        None => Finding::warn(NAME, "cannot find the home directory: set HOME"),
    }
}

pub fn edit(file: &Path) -> String {
    format!("\"${{EDITOR:-vi}}\" {}", quoted(file))
}

/// Checks the state directory. Hangs if its file system does.
pub fn state(context: &CheckContext) -> Vec<Finding> {
    const NAME: &str = "state";
    let root = &context.state_root;
    let mut checks = Vec::new();
    let at = root.display();
    match fs::symlink_metadata(root) {
        Ok(found) if found.is_symlink() && root.ends_with(".orchestrator") => {
            checks.push(
                Finding::bad(NAME, format!("{at} is a link, which is not allowed"))
                    .fix(format!("rm {}", quoted(root)))
                    .stops_all(),
            );
        }
        Ok(found) if !found.is_dir() && !found.is_symlink() => {
            checks.push(
                Finding::bad(NAME, format!("{at} is not a folder"))
                    .fix(format!("mv {0} {0}.old", quoted(root)))
                    .stops_all(),
            );
        }
        _ if !is_writable(root) => {
            checks.push(
                Finding::bad(NAME, format!("{at} is not writable"))
                    .fix(format!("sudo chown -R \"$(id -un)\" {}", quoted(nearest(root))))
                    .stops_all(),
            );
        }
        Ok(found) if found.permissions().mode() & 0o077 != 0 && root.ends_with(".orchestrator") => {
            checks.push(
                Finding::warn(NAME, format!("{at} is readable by other users (the next server fixes it)"))
                    .fix(format!("chmod 700 {}", quoted(root))),
            );
        }
        Ok(_) => checks.push(Finding::ok(NAME, format!("{at}"))),
        Err(_) => checks.push(Finding::ok(NAME, format!("the first mission creates {at}"))),
    }
    checks.extend(newer_state(root));
    checks.extend(file_system(root, context.settings.launchers.keys().next().map(String::as_str)));
    checks.push(disk("disk", root, &context.settings));
    checks.extend(notify(context));
    checks
}

/// Checks that locks hold in the state directory or, if a cluster runs workers, that nodes can see it.
fn file_system(root: &Path, launcher: Option<&str>) -> Option<Finding> {
    const NAME: &str = "file system";
    let at = root.display();
    match (process::network_file_system(root), launcher) {
        (None, None) => None,
        (Some(kind), None) => Some(
            Finding::warn(NAME, format!("{at} is on {kind}, where locks may fail: keep the state on a local disk"))
                .fix("export ORCHESTRATOR_STATE_DIR=\"$HOME/.local/state/orchestrator-boss/$(basename \"$PWD\")\""),
        ),
        (Some(kind), Some(launcher)) => {
            let message = format!("{at} is on {kind}, which the nodes of {launcher} must share; see");
            Some(Finding::note(NAME, message).fix(format!("orchestrator-boss doctor --on {launcher}")))
        }
        (None, Some(launcher)) => {
            let message = format!(
                "{at} is on a disk of this host: the nodes of {launcher} must see it under the same path, with the \
                 repository and its worktrees; keep them on a shared file system, and see"
            );
            Some(Finding::warn(NAME, message).fix(format!("orchestrator-boss doctor --on {launcher}")))
        }
    }
}

/// Reports the last failure of `notify_command`, if the settings still have one.
fn notify(context: &CheckContext) -> Option<Finding> {
    let command = context.settings.notify_command.as_deref()?;
    let failure = NotifyFailure::last(&context.state_root).ok()??;
    let at = failure.at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S");
    let message = format!("notify_command failed at {at}: {}; fix it, or try it as below", failure.error);
    let check = Finding::warn("notify", message);
    let check = context.settings.file.as_deref().map_or(check.clone(), |file| check.fix(edit(file)));
    Some(check.fix(format!("echo '{{}}' | sh -c {}", quoted(Path::new(command)))))
}

/// Checks the version of the state file. The check of the workers covers the journal.
fn newer_state(root: &Path) -> Option<Finding> {
    let path = state_file(root);
    let state: serde_json::Value = files::read_json(&path).ok().flatten()?;
    let found = state.get("version")?.as_u64().filter(|version| *version > u64::from(FORMAT))?;
    let message = format!(
        "{} was written by a newer orchestrator-boss (version {found}; this one knows {FORMAT}): use that one, or another \
         --state-dir",
        path.display()
    );
    Some(Finding::bad("state file", message).stops_all())
}

pub fn disk(name: &str, root: &Path, settings: &Settings) -> Finding {
    let floor = settings.min_free_disk_mib;
    match process::free_disk_bytes(root) {
        None => Finding::warn(name, "the system does not report the free amount"),
        Some(free) if free >> 20 < floor => too_little(name, "free", free, floor, "min_free_disk_mib"),
        Some(free) => Finding::ok(name, format!("{} free at {}", bytes(free), root.display())),
    }
}

fn too_little(name: &str, what: &str, free: u64, floor_mib: u64, setting: &str) -> Finding {
    let message = format!("{} {what}, and no worker starts below {} ({setting})", bytes(free), bytes(floor_mib << 20));
    Finding::bad(name, message).stops_all()
}

pub fn machine(settings: &Settings) -> Vec<Finding> {
    let mut checks = vec![memory(settings), processes(settings), files()];
    if settings.max_workers == Some(0) {
        let is_variable = env::var_os("ORCHESTRATOR_MAX_WORKERS").is_some_and(|value| !value.is_empty());
        let (set, fix) = match (&settings.file, is_variable) {
            (Some(file), false) => ("max_workers", edit(file)),
            _ => ("ORCHESTRATOR_MAX_WORKERS", "unset ORCHESTRATOR_MAX_WORKERS".to_owned()),
        };
        checks.push(Finding::bad("workers", format!("{set} is 0: no worker starts")).fix(fix).stops_all());
    }
    if let Some(tag) = process::inherited_tag().filter(|tag| process::depth_of(tag) >= settings.max_depth) {
        let message =
            format!("this is a worker of another orchestrator ({tag}), and workers do not manage workers (max_depth)");
        checks.push(Finding::bad("depth", message).stops_all());
    }
    checks
}

fn memory(settings: &Settings) -> Finding {
    const NAME: &str = "memory";
    let floor = settings.min_free_memory_mib;
    match process::free_memory_bytes() {
        None => Finding::warn(NAME, "the system does not report the free amount"),
        Some(free) if free >> 20 < floor => too_little(NAME, "free", free, floor, "min_free_memory_mib"),
        Some(free) => {
            let total = process::total_memory_bytes().map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
            Finding::ok(NAME, format!("{} free{total}", bytes(free)))
        }
    }
}

fn processes(settings: &Settings) -> Finding {
    const NAME: &str = "processes";
    let floor = settings.min_free_processes;
    match process::free_processes() {
        None => Finding::warn(NAME, "the system does not report the limit"),
        Some(free) if free < floor => {
            let message =
                format!("{free} more can be started, and no worker starts below {floor} (min_free_processes)");
            Finding::bad(NAME, message).fix("ulimit -u unlimited").stops_all()
        }
        Some(free) => Finding::ok(NAME, format!("{free} more can be started")),
    }
}

fn files() -> Finding {
    const NAME: &str = "open files";
    match process::free_files() {
        None => Finding::ok(NAME, "no limit"),
        Some(free) if free < FEW_FILES => {
            Finding::warn(NAME, format!("a process can open {free} more; a server needs about 12 for each worker"))
                .fix("ulimit -n 4096")
        }
        Some(free) => Finding::ok(NAME, format!("a process can open {free} more")),
    }
}

/// Returns the folder, or its nearest ancestor that exists.
pub fn nearest(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| fs::symlink_metadata(folder).is_ok()).unwrap_or(folder)
}

/// Returns whether a file could be created in the folder. Creates nothing.
pub fn is_writable(folder: &Path) -> bool {
    access(nearest(folder), Access::WRITE_OK | Access::EXEC_OK).is_ok()
}
