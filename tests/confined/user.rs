//! The attacks as an ordinary user, if the tests run as root: root may do more than the kernel's usual rules allow, so a
//! refusal of the confinement must not depend on it.

use std::os::unix::fs::chown;
use std::process::Command;

use crate::support::sandbox::PROGRAM;

/// A user and group that exist nowhere.
const ORDINARY: u32 = 64_321;

/// The tests that run again.
const AGAIN: [&str; 6] = [
    "attacks::confined_cli_writes_only_its_own",
    "attacks::confined_setup_writes_only_its_own",
    "attacks::confined_verification_writes_only_its_own",
    "attacks::every_attack_succeeds_without_confinement",
    "ends::links_of_an_earlier_attempt_grant_nothing",
    "answers::unreadable_folders_cannot_be_read",
];

#[test]
fn attacks_have_the_same_end_as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: these tests run as an ordinary user anyway");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(ORDINARY), Some(ORDINARY)).unwrap();
    let mut command = as_ordinary_user(&[]);
    if !command.args(["test", "-x", PROGRAM]).status().unwrap().success() {
        // The folder of the build is private to root, so this user needs to pass through it.
        let pass = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"];
        command = as_ordinary_user(&pass);
    } else {
        command = as_ordinary_user(&[]);
    }
    command.arg(std::env::current_exe().unwrap()).arg("--exact").args(AGAIN);
    command.env("HOME", folder.path()).env("TMPDIR", folder.path()).current_dir(folder.path());
    let ended = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && text.contains(&format!("{} passed", AGAIN.len())), "{text}");
}

fn as_ordinary_user(more: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    let id = ORDINARY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).args(more).arg("--");
    command
}
