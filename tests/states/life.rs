//! The life of one worker: its script, and the tool calls of its boss. The checks are in `oracle.rs`.

use std::fs;

use serde_json::{Value, json};

use crate::case::{Case, Checkout, Ending, Layout, Meanwhile, Write};
use crate::oracle::{self, Mark};
use crate::support::json_lines::Boss;
use crate::world::{TAKEN_BACK, World};

pub const TITLE: &str = "state";

pub fn live(world: &World, case: &Case) {
    let mut boss = Boss::start(world.server());
    let script = Script::of(world, case);
    let mut mission = json!({ "title": TITLE, "backend": "fake", "prompt": script.prompt() });
    if case.verify {
        mission["verify_command"] = json!("test -e code.txt || test -e shared.txt");
    }
    let created = match boss.call("create_worker_mission", mission).expect("the server lives") {
        Ok(created) => created,
        Err(why) => return oracle::check_refused_creation(world, case, &why),
    };
    let worker = created["worker"]["worker_id"].as_str().expect("an id").to_owned();
    let began = script.wait_until_begun(world, &mut boss, &worker);
    if began {
        act_as_user(world, case);
        fs::write(world.shared("go"), "").expect("a file");
    }
    let waited = boss.succeed("wait_for_worker", json!({ "worker_id": worker, "timeout_seconds": 60 }));
    assert_eq!(waited["status"], "settled", "{waited:#}");
    if !began {
        return oracle::check_refused_start(world, case, &waited["settled"][0]);
    }
    let mut seen = oracle::Seen::new(world, case, script.marks, worker.clone());
    seen.read_worker(&mut boss);
    let integrate = json!({ "worker_id": worker, "strategy": case.strategy });
    let mut dry = integrate.clone();
    dry["dry_run"] = json!(true);
    let foretold = boss.call("integrate_worker", dry).expect("the server lives");
    let answer = boss.call("integrate_worker", integrate).expect("the server lives");
    seen.check_integration(&foretold, &answer);
    let removal = boss.call("remove_worktree", json!({ "worker_id": worker })).expect("the server lives");
    seen.check_removal("without force", &removal);
    let removal =
        boss.call("remove_worktree", json!({ "worker_id": worker, "force": true })).expect("the server lives");
    seen.check_removal("with force", &removal);
    boss.leave();
    seen.check_end();
}

/// Performs the user's action while the worker runs.
fn act_as_user(world: &World, case: &Case) {
    match case.meanwhile {
        Meanwhile::Nothing => {}
        // Moves the branch as a push does, which also works without a checkout.
        Meanwhile::Commits => {
            let parent = world.git(&["rev-parse", &world.integration_ref()]);
            let tree = format!("{parent}^{{tree}}");
            let made = world.git(&["commit-tree", &tree, "-p", &parent, "-m", "meanwhile"]);
            world.git(&["update-ref", &world.integration_ref(), &made]);
        }
        Meanwhile::TakesBack => match case.layout {
            Layout::Bare => {
                world.git(&["update-ref", &world.integration_ref(), &format!("{}~1", world.integration_ref())]);
            }
            // `--keep` preserves the user's edits.
            _ => drop(world.git(&["reset", "-q", "--keep", "HEAD~1"])),
        },
    }
}

struct Script {
    lines: Vec<String>,
    marks: Vec<Mark>,
}

impl Script {
    fn of(world: &World, case: &Case) -> Self {
        let mut script = Self { lines: Vec::new(), marks: Vec::new() };
        script.run("cd \"$(git rev-parse --show-toplevel)\" && pwd > /dev/null");
        script.lines.push(format!("touch {}", world.shared("begun").display()));
        script.lines.push(format!("wait-file {}", world.shared("go").display()));
        for (number, write) in case.writes.iter().enumerate() {
            if number == case.committed && case.committed > 0 {
                script.commit();
            }
            script.write(number, *write);
        }
        if case.committed == case.writes.len() {
            script.commit();
        }
        script.end(case.ending, world);
        script
    }

    fn prompt(&self) -> String {
        format!("FAKE:\n{}\nsay done\nEND", self.lines.join("\n"))
    }

    /// Waits until the worker begins. Returns `false` if it settles without beginning.
    fn wait_until_begun(&self, world: &World, boss: &mut Boss, worker: &str) -> bool {
        let began = std::time::Instant::now();
        while !world.shared("begun").exists() {
            let status = boss.succeed("get_worker_status", json!({ "worker_id": worker }));
            if is_settled(&status["worker"]) {
                return world.shared("begun").exists();
            }
            assert!(began.elapsed() < crate::support::wait::CEILING, "it never began: {status:#}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        true
    }

    /// Adds a shell command that runs at the top of the worktree. The fake CLI reports its failure and continues.
    fn run(&mut self, command: &str) {
        self.lines.push(format!("run cd \"$(git rev-parse --show-toplevel)\" && {{ {command}; }}"));
    }

    fn commit(&mut self) {
        self.run("git add -A && git commit -q -m work");
    }

    /// Returns a unique text, and records it with its path.
    fn mark(&mut self, path: &str) -> String {
        let text = format!("mark-{}-of-the-worker", self.marks.len());
        self.marks.push(Mark { text: text.clone(), path: path.to_owned() });
        text
    }

    fn write(&mut self, number: usize, write: Write) {
        let path = match write {
            Write::Plain => format!("w{number}-plain.txt"),
            Write::Nested => format!("w{number}-nested/deep/er.txt"),
            Write::OddName => format!("w{number} odd * [x] ä.txt"),
            Write::Huge => format!("w{number}-huge.bin"),
            Write::Ignored => format!("w{number}.ignored"),
            Write::Unreadable => format!("w{number}-unreadable.txt"),
            Write::Executable => format!("w{number}-script"),
            Write::Shared => "shared.txt".to_owned(),
        };
        let folder = path.rsplit_once('/').map_or(".", |(folder, _)| folder).to_owned();
        // A second write replaces the file, so only its last text can be expected.
        self.marks.retain(|mark| mark.path != path);
        let mark = self.mark(&path);
        let fill = if write == Write::Huge { " && head -c 3000000 /dev/zero >> \"$f\"" } else { "" };
        let mode = match write {
            Write::Unreadable => " && chmod 000 \"$f\"",
            Write::Executable => " && chmod 755 \"$f\"",
            _ => "",
        };
        self.run(&format!("f='{path}'; mkdir -p '{folder}' && echo {mark} > \"$f\"{fill}{mode}"));
    }

    fn write_plainly(&mut self, name: &str) {
        let mark = self.mark(name);
        self.run(&format!("echo {mark} > {name}"));
    }

    fn end(&mut self, ending: Ending, world: &World) {
        match ending {
            Ending::Files => self.write_plainly("end.txt"),
            Ending::Staged => {
                self.write_plainly("end.txt");
                self.run("git add -A");
            }
            Ending::Committed => {
                self.write_plainly("end.txt");
                self.commit();
            }
            Ending::MergeConflict => self.conflict("git merge -q rival"),
            Ending::MergeToCommit => {
                self.commit_end();
                self.run("git merge -q --no-commit --no-ff -X ours rival");
            }
            Ending::CherryPickConflict => self.conflict("git cherry-pick rival"),
            Ending::RevertToCommit => {
                self.commit_end();
                self.run("git revert --no-commit HEAD~0 && git checkout -q HEAD -- .");
                self.write_plainly("after-revert.txt");
            }
            Ending::RebaseConflict => self.conflict("git rebase -q rival"),
            Ending::PatchConflict => {
                let patch = world.path("patch");
                self.conflict(&format!("git format-patch -1 rival --stdout > {0} && git am -q {0}", patch.display()));
            }
            Ending::Bisect => {
                self.commit_end();
                self.run("git bisect start -q HEAD HEAD~1");
                self.write_plainly("in-bisect.txt");
            }
            Ending::StaleIndexLock => {
                self.write_plainly("end.txt");
                self.run("touch \"$(git rev-parse --git-path index.lock)\"");
            }
            Ending::DetachedWithCommit => {
                self.run("git checkout -q --detach");
                self.commit_end();
            }
            Ending::OtherBranchWithCommit => {
                self.run("git checkout -q -b another");
                self.commit_end();
            }
            Ending::Orphan => {
                self.run("git checkout -q --orphan alone");
                self.commit_end();
            }
            Ending::Stash => {
                self.write_plainly("end.txt");
                self.run("git stash -q -u");
            }
            Ending::NestedRepository => {
                self.run("git init -q inner");
                self.write_plainly("inner/inside.txt");
            }
            Ending::NestedRepositoryWithCommit => {
                self.run("git init -q inner");
                self.write_plainly("inner/inside.txt");
                self.run("git -C inner add -A && git -C inner -c user.name=W -c user.email=w@w commit -q -m inside");
            }
            Ending::BranchDeleted => {
                self.commit_end();
                self.run("b=$(git branch --show-current); git checkout -q --detach && git branch -q -D \"$b\"");
            }
            Ending::BranchRenamed => {
                self.commit_end();
                self.run("git branch -m renamed-by-worker");
            }
            Ending::AssumedUnchanged => {
                self.marks.retain(|mark| mark.path != "other.txt");
                self.run("git update-index --assume-unchanged other.txt");
                self.write_plainly("other.txt");
            }
            Ending::IntentToAdd => {
                self.write_plainly("end.txt");
                self.run("git add -N end.txt");
            }
        }
    }

    fn commit_end(&mut self) {
        self.write_plainly("end.txt");
        self.commit();
    }

    /// Commits a change of the file that `rival` changes too, starts the operation, and resolves it without finishing.
    fn conflict(&mut self, operation: &str) {
        self.run("echo mine > shared.txt");
        self.marks.retain(|mark| mark.path != "shared.txt");
        self.commit();
        self.run(operation);
        self.write_plainly("shared.txt");
    }
}

pub fn is_settled(worker: &Value) -> bool {
    let open = ["queued", "starting", "running", "verifying", "blocked"];
    !open.contains(&worker["status"].as_str().unwrap_or_default())
}

/// Returns whether the state of the user's checkout may prevent the integration.
pub fn may_be_refused(case: &Case) -> bool {
    matches!(case.checkout, Checkout::EditedSame | Checkout::UntrackedSame | Checkout::UnfinishedMerge)
}

/// Returns files that may be on the integration branch besides the worker's: from a merged branch, or from the user.
pub fn brought_by(case: &Case) -> Vec<&'static str> {
    let mut files = vec![TAKEN_BACK];
    let brings_rival = matches!(
        case.ending,
        Ending::MergeConflict
            | Ending::MergeToCommit
            | Ending::CherryPickConflict
            | Ending::RebaseConflict
            | Ending::PatchConflict
    );
    if brings_rival {
        files.push("rival.txt");
    }
    files
}
