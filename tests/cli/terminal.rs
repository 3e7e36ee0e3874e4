//! Behaviour on a terminal: colours, the pager, the question, and Ctrl-C.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::answer::{asking_world, start_asking};
use crate::support::wait::CEILING;
use crate::world::*;

/// A program on its own terminal.
struct Terminal {
    child: Child,
    keys: File,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("a terminal of this process");
        unlockpt(&master).expect("it can be opened");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let name = name.to_str().expect("a path").to_owned();
        let slave = || OwnedFd::from(File::options().read(true).write(true).open(&name).expect("it opens"));
        let child = command
            .env("TERM", "xterm")
            .stdin(Stdio::from(slave()))
            .stdout(Stdio::from(slave()))
            .stderr(Stdio::from(slave()))
            .spawn()
            .expect("the program starts");
        drop(command);
        let mut reader = File::from(master.try_clone().expect("another handle"));
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keys: File::from(master), output, seen: String::new() }
    }

    fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let bytes = self.output.recv_timeout(CEILING).unwrap_or_else(|_| panic!("{text} in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it takes keys");
    }

    /// Waits for the end. Returns the exit code and all output.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().expect("the program exits").code();
        // The channel closes once everything was read.
        while let Ok(bytes) = self.output.recv_timeout(CEILING) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        (code, self.seen)
    }
}

#[test]
fn clean_asks_and_ctrl_c_declines() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("clean", "say nothing"));
    until_status(&mut boss, &worker, "completed");
    let ask = || Terminal::start(world.program(&["clean"]));
    let mut no = ask();
    no.until("[y/N]");
    no.press("n\n");
    assert_eq!(no.end().0, Some(1));
    let mut stopped = ask();
    stopped.until("[y/N]");
    interrupt(&stopped.child);
    assert_eq!(stopped.end().0, Some(130));
    let (code, said) = Terminal::start(world.program(&["clean", "--json"])).end();
    assert!(code == Some(2) && said.contains("--yes"), "it asks only about what it has shown: {said}");
    assert!(world.worktree(&worker).exists());
    let mut yes = ask();
    yes.until("[y/N]");
    yes.press("y\n");
    let (code, shown) = yes.end();
    assert!(code == Some(0) && shown.contains("1 worktree removed"), "{shown}");
    assert!(!world.worktree(&worker).exists());
}

#[test]
fn diff_uses_only_the_users_pager() {
    let world = World::new();
    let mut boss = world.boss();
    let evil = world.path("evil");
    let script = format!("write a.txt a\ncommit a\nrun git config core.pager 'touch {}; cat'", evil.display());
    let worker = create(&mut boss, mission("diff", &script));
    until_status(&mut boss, &worker, "completed");
    let mut command = world.program(&["diff", &worker]);
    let pager = world.path("pager");
    // Another process writes it: a child of another thread could inherit the open file, and a file that is open for
    // writing cannot be started.
    let script = "#!/bin/sh\nsed \"s/^/$1: /\"\n";
    let mut writer = Command::new("sh");
    writer.args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", script]).arg(&pager);
    assert!(writer.status().unwrap().success());
    command.env("PAGER", format!("{} paged", pager.display()));
    let (code, shown) = Terminal::start(command).end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("paged: ") && shown.contains("\u{1b}["), "{shown:?}");
    assert!(!evil.exists());
    let mut command = world.program(&["diff", &worker]);
    command.env("PAGER", "false").env("NO_COLOR", "1").env("GIT_PAGER", "cat");
    let (code, shown) = Terminal::start(command).end();
    assert!(code == Some(0) && shown.contains("+a") && !shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn diff_without_pager_is_sanitized() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("escape", "run printf 'a\\033]0;evil\\007b\\n' > a.txt\ncommit a"));
    until_status(&mut boss, &worker, "completed");
    let shown = |colours: bool| {
        let mut command = world.program(&["diff", &worker]);
        command.env("PAGER", "cat");
        if !colours {
            command.env("NO_COLOR", "1");
        }
        Terminal::start(command).end().1
    };
    assert!(shown(false).contains("+a]0;evilb\r\n"), "{:?}", shown(false));
    let coloured = shown(true);
    assert!(coloured.contains("\u{1b}[32m") && !coloured.contains("\u{1b}]0"), "{coloured:?}");
    // A pipe gets the unchanged text.
    assert!(world.run(&["diff", &worker]).ended(0).contains("\u{1b}]0;evil\u{7}"));
}

#[test]
fn raw_log_on_a_terminal_is_sanitized() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("escape", "run printf 'a\\033[2Jb' >&2"));
    until_status(&mut boss, &worker, "completed");
    std::fs::write(world.attempt(&worker, 1).join("stdout.log"), "x\u{1b}]0;evil\u{7}y\n").unwrap();
    let (code, shown) = Terminal::start(world.program(&["logs", &worker, "--raw"])).end();
    assert_eq!((code, shown.as_str()), (Some(0), "x]0;evily\r\n"));
    let (_, shown) = Terminal::start(world.program(&["logs", &worker])).end();
    assert!(shown.contains("\u{1b}[36mshell:") && !shown.contains("\u{1b}[2J"), "{shown:?}");
}

#[test]
fn wait_notifies_through_the_terminal() {
    for (setting, expected) in [("", true), ("notify_terminal = false", false)] {
        let world = World::with(setting);
        let mut boss = world.boss();
        let worker = create(&mut boss, mission("Fix it", "wait-file ../../repo/go"));
        until_status(&mut boss, &worker, "running");
        let mut terminal = Terminal::start(world.program(&["wait"]));
        terminal.until("1 open");
        std::fs::write(world.repo().join("go"), "").unwrap();
        let (code, seen) = terminal.end();
        assert_eq!(code, Some(0), "{seen:?}");
        let sequence = format!("\x1b]9;{worker} completed: Fix it\x07\x07");
        assert_eq!(seen.contains(&sequence), expected, "{seen:?}");
        assert!(!world.run(&["wait", &worker]).ended(0).contains('\x07'));
    }
}

#[test]
fn answer_asks_for_the_decision() {
    let world = asking_world();
    let mut boss = world.boss();
    let worker = start_asking(&mut boss, &["/etc/hosts", "/etc/passwd"]);
    let mut terminal = Terminal::start(world.program(&["answer", "w-1"]));
    terminal.until("q1.1.1: permission for edit: /etc/hosts");
    terminal.until("Answer to q1.1.1 (deny REASON gives a reason; enter: none): ");
    terminal.press("deny not yours\n");
    terminal.until(&format!("q1.1.1 of {worker} is denied"));
    assert_eq!(terminal.end().0, Some(0));
    until("the next question", || status(&mut boss, &worker)["questions"][0]["question_id"] == "q1.1.2");
    let mut terminal = Terminal::start(world.program(&["answer", "w-1"]));
    terminal.until("enter: none): ");
    terminal.press("\n");
    terminal.until("not answered");
    assert_eq!(terminal.end().0, Some(2));
    world.run(&["answer", "w-1", "allow"]).ended(0);
    until_status(&mut boss, &worker, "completed");
}
