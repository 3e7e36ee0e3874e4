//! What this machine has left, and the folder in which the state lies.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Access, access};

use super::Place;
use super::check::Check;
use crate::attempt::state_dir::state_file;
use crate::cli::shell::quoted;
use crate::cli::terminal::bytes;
use crate::config::{Settings, default_path};
use crate::files;
use crate::mission::entry::FORMAT;
use crate::process;

/// Each worker takes about 12 of the server.
const FEW_FILES: u64 = 256;

pub fn settings(place: &Place) -> Check {
    const NAME: &str = "settings";
    if let Some(why) = &place.settings_error {
        let check = Check::bad(NAME, why).stops_all();
        return match place.named_settings.clone().or_else(default_path).filter(|path| path.exists()) {
            Some(path) => check.fix(edit(&path)),
            None => check,
        };
    }
    match place.named_settings.clone().or_else(default_path) {
        Some(path) if path.exists() => Check::ok(NAME, path.display().to_string()),
        Some(path) => Check::ok(NAME, format!("none, so the defaults count ({} would be read)", path.display())),
        None => Check::warn(NAME, "there is no home folder to look for them in: set HOME"),
    }
}

fn edit(file: &Path) -> String {
    format!("\"${{EDITOR:-vi}}\" {}", quoted(file))
}

/// May hang, if the file system does.
pub fn state(place: &Place) -> Vec<Check> {
    const NAME: &str = "state";
    let root = &place.state_root;
    let mut checks = Vec::new();
    let at = root.display();
    match fs::symlink_metadata(root) {
        Ok(found) if found.is_symlink() && root.ends_with(".orchestrator") => {
            checks.push(
                Check::bad(NAME, format!("{at} is a link, and nothing is written through one"))
                    .fix(format!("rm {}", quoted(root)))
                    .stops_all(),
            );
        }
        Ok(found) if !found.is_dir() && !found.is_symlink() => {
            checks.push(
                Check::bad(NAME, format!("{at} is no folder")).fix(format!("mv {0} {0}.old", quoted(root))).stops_all(),
            );
        }
        _ if !is_writable(root) => {
            checks.push(
                Check::bad(NAME, format!("{at} cannot be written"))
                    .fix(format!("sudo chown -R \"$(id -un)\" {}", quoted(nearest(root))))
                    .stops_all(),
            );
        }
        Ok(found) if found.permissions().mode() & 0o077 != 0 && root.ends_with(".orchestrator") => {
            checks.push(
                Check::warn(NAME, format!("{at} can be seen by others on this machine (the next server mends it)"))
                    .fix(format!("chmod 700 {}", quoted(root))),
            );
        }
        Ok(_) => checks.push(Check::ok(NAME, format!("{at}"))),
        Err(_) => checks.push(Check::ok(NAME, format!("{at} will be made by the first mission"))),
    }
    checks.extend(newer_state(root));
    if let Some(kind) = process::network_file_system(root) {
        checks.push(
            Check::warn(
                "file system",
                format!("{at} lies on {kind}, where locks may not hold: keep the state on a local disk"),
            )
            .fix("export ORCHESTRATOR_STATE_DIR=\"$HOME/.local/state/orchestrator-boss/$(basename \"$PWD\")\""),
        );
    }
    checks.push(disk("disk", root, &place.settings));
    checks
}

/// The journal says the same of itself when the workers are looked at.
fn newer_state(root: &Path) -> Option<Check> {
    let path = state_file(root);
    let told: serde_json::Value = files::read_json(&path).ok().flatten()?;
    let found = told.get("version")?.as_u64().filter(|version| *version > u64::from(FORMAT))?;
    let says = format!(
        "{} was written by a newer orchestrator-boss (version {found}; this one knows {FORMAT}): use that one, or another \
         --state-dir",
        path.display()
    );
    Some(Check::bad("state file", says).stops_all())
}

pub fn disk(name: &str, root: &Path, settings: &Settings) -> Check {
    let floor = settings.min_free_disk_mib;
    match process::free_disk_bytes(root) {
        None => Check::warn(name, "the system does not tell what is free"),
        Some(free) if free >> 20 < floor => too_little(name, "free", free, floor, "min_free_disk_mib"),
        Some(free) => Check::ok(name, format!("{} free at {}", bytes(free), root.display())),
    }
}

fn too_little(name: &str, what: &str, free: u64, floor_mib: u64, setting: &str) -> Check {
    let says = format!("{} {what}, and nothing starts below {} ({setting})", bytes(free), bytes(floor_mib << 20));
    Check::bad(name, says).stops_all()
}

pub fn machine(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![memory(settings), processes(settings), files()];
    if settings.max_workers == Some(0) {
        let is_variable = env::var_os("ORCHESTRATOR_MAX_WORKERS").is_some_and(|value| !value.is_empty());
        let (set, fix) = match (&settings.file, is_variable) {
            (Some(file), false) => ("max_workers", edit(file)),
            _ => ("ORCHESTRATOR_MAX_WORKERS", "unset ORCHESTRATOR_MAX_WORKERS".to_owned()),
        };
        checks.push(Check::bad("workers", format!("{set} is 0: nothing starts")).fix(fix).stops_all());
    }
    if let Some(tag) = process::inherited_tag().filter(|tag| process::depth_of(tag) >= settings.max_depth) {
        let says = format!("this is a worker of another orchestrator ({tag}), and workers lead no workers (max_depth)");
        checks.push(Check::bad("depth", says).stops_all());
    }
    checks
}

fn memory(settings: &Settings) -> Check {
    const NAME: &str = "memory";
    let floor = settings.min_free_memory_mib;
    match process::free_memory_bytes() {
        None => Check::warn(NAME, "the system does not tell what is free"),
        Some(free) if free >> 20 < floor => too_little(NAME, "free", free, floor, "min_free_memory_mib"),
        Some(free) => {
            let total = process::total_memory_bytes().map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
            Check::ok(NAME, format!("{} free{total}", bytes(free)))
        }
    }
}

fn processes(settings: &Settings) -> Check {
    const NAME: &str = "processes";
    let floor = settings.min_free_processes;
    match process::free_processes() {
        None => Check::warn(NAME, "the system does not tell how many more there may be"),
        Some(free) if free < floor => {
            let says = format!("{free} more may be started, and nothing starts below {floor} (min_free_processes)");
            Check::bad(NAME, says).fix("ulimit -u unlimited").stops_all()
        }
        Some(free) => Check::ok(NAME, format!("{free} more may be started")),
    }
}

fn files() -> Check {
    const NAME: &str = "open files";
    match process::free_files() {
        None => Check::ok(NAME, "no limit is told"),
        Some(free) if free < FEW_FILES => Check::warn(
            NAME,
            format!("{free} more may be opened by a process; a server wants about 12 for each worker"),
        )
        .fix("ulimit -n 4096"),
        Some(free) => Check::ok(NAME, format!("{free} more may be opened by a process")),
    }
}

/// Of a folder that is not there yet, the nearest above it that is.
pub fn nearest(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| fs::symlink_metadata(folder).is_ok()).unwrap_or(folder)
}

/// Whether something can be made in it. Nothing is, to find out.
pub fn is_writable(folder: &Path) -> bool {
    access(nearest(folder), Access::WRITE_OK | Access::EXEC_OK).is_ok()
}
