//! Other programs of the user hold all inotify watches. Then the program polls without reporting a problem, and
//! `doctor` shows how many watches are left.

use std::process::Command;

use crate::world::{World, create, mission, settled, skip};

/// A command that runs a program in its own user namespace, which has its own limit.
const WITHOUT: [&str; 5] =
    ["unshare", "-r", "sh", "-c", "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\""];

#[test]
fn workers_are_followed_without_inotify_watches() {
    let tried = Command::new(WITHOUT[0]).args(&WITHOUT[1..]).arg("true").output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        return skip(&format!("no user namespace can be made here: {tried:?}"));
    }
    let world = World::new().through(&WITHOUT);
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("t", "say words\nwrite a.txt a\ncommit a"));
    assert_eq!(settled(&mut boss, &worker)["status"], "completed");
    for how in [&["--follow"][..], &["--follow", "--raw"]] {
        let output = world.run(&[&["logs", &*worker], how].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("words"), "{output:?}");
    }
}
