//! All kinds of work and tool calls in random order. A failure names its seed; `KEEP_SEED=<seed>` runs that one alone,
//! `KEEP_SEEDS=<n>` the first n seeds.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::orchestrator::{
    IntegrationRequest, IntegrationSource, NewMessage, RemovalAnswer, RemovalRequest, RemovalTarget, RetryRequest,
    Scope, Strategy, WorktreeRequest,
};

use crate::ledger::Ledger;
use crate::support::wait::CEILING;
use crate::world::{Server, World, mission};

const SEEDS: u64 = 3;
const STEPS: usize = 40;

/// A seeded random generator (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

fn seeds(most: u64) -> Vec<u64> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    match number("KEEP_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("KEEP_SEEDS").unwrap_or(most)).collect(),
    }
}

/// Runs git as a worker or a user would. It may fail.
fn try_git(dir: &Path, args: &[&str]) -> bool {
    run_git(dir, args).status.success()
}

#[track_caller]
fn must_git(dir: &Path, args: &[&str]) {
    let output = run_git(dir, args);
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn run_git(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("git");
    command.args(["-c", "protocol.file.allow=always", "-c", "core.editor=true"]).args(args).current_dir(dir);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.output().expect("git runs")
}

struct Run {
    world: World,
    server: Server,
    ledger: Ledger,
    chance: Chance,
    /// The actions so far, for failure messages.
    log: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let world = World::new();
        world.git(&["config", "user.useConfigOnly", "true"]);
        world.git(&["clone", "-q", "--bare", ".", "../library.git"]);
        world.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../library.git", "lib"]);
        fs::write(world.repo().join(".gitignore"), "build/\n.env\n").unwrap();
        fs::write(world.repo().join(".worktreeinclude"), ".env\n").unwrap();
        fs::write(world.repo().join(".env"), "A=1\n").unwrap();
        world.git(&["add", "-A"]);
        world.git(&["commit", "-q", "-m", "library"]);
        let server = world.server(Some("boss"));
        Self { world, server, ledger: Ledger::default(), chance: Chance(seed), log: vec![format!("seed {seed}")] }
    }

    fn worktrees(&self) -> Vec<PathBuf> {
        let listed = self.world.git(&["worktree", "list", "--porcelain"]);
        let places = listed.lines().filter_map(|line| line.strip_prefix("worktree ")).skip(1).map(PathBuf::from);
        places.filter(|place| place.exists()).collect()
    }

    fn branches(&self) -> Vec<String> {
        self.world.git(&["branch", "--format=%(refname:short)"]).lines().map(str::to_owned).collect()
    }

    fn salvage_refs(&self) -> BTreeSet<String> {
        let refs = self.world.git(&["for-each-ref", "--format=%(refname)", "refs/orchestrator/salvage"]);
        refs.lines().map(str::to_owned).collect()
    }

    fn content(&mut self, what: &str) -> String {
        self.ledger.make(what)
    }

    fn check_all_found(&self, before: &BTreeSet<String>) {
        let mut lost = before.clone();
        // A worker may move content from an unscanned place to a scanned one, so the scan is repeated. Lost content is
        // never found again.
        for _ in 0..5 {
            let found = self.ledger.findable(&self.world.repo());
            lost.retain(|content| !found.contains(content));
            if lost.is_empty() {
                return;
            }
        }
        panic!("lost {lost:?}\n{}", self.log.join("\n"));
    }

    /// Checks that the answer names every new salvage ref.
    fn check_named(&self, before: &BTreeSet<String>, answer: &RemovalAnswer) {
        let named: BTreeSet<String> = answer.removed.iter().filter_map(|it| it.salvage_ref.clone()).collect();
        let new: BTreeSet<_> = self.salvage_refs().difference(before).cloned().collect();
        let kept = answer.kept.iter().map(|it| it.why.clone()).collect::<Vec<_>>();
        assert!(new.is_subset(&named), "{new:?} are not all in {named:?} ({kept:?})\n{}", self.log.join("\n"));
    }

    async fn remove(&mut self, target: RemovalTarget) {
        let request =
            RemovalRequest { target, repo_path: None, force: self.chance.coin(), delete_branch: self.chance.coin() };
        self.log.push(format!("remove {request:?}"));
        let (refs, contents) = (self.salvage_refs(), self.ledger.findable(&self.world.repo()));
        let answer = self.server.orchestrator.remove_worktree(&self.server.boss, request).await;
        self.log.push(format!("  {answer:?}"));
        // The user's `git worktree prune` removes a worktree whose folder is deleted.
        let listed = self.world.git(&["worktree", "list", "--porcelain"]);
        if self.chance.coin() && !listed.contains("prunable") {
            self.clean_up_as_user().await;
        }
        self.check_all_found(&contents);
        if let Ok(answer) = answer {
            self.check_named(&refs, &answer);
        }
    }

    async fn clean_up_as_user(&mut self) {
        self.log.push("  the user's gc and prune".to_owned());
        must_git(&self.world.repo(), &["reflog", "expire", "--expire=now", "--expire-unreachable=never", "HEAD"]);
        must_git(&self.world.repo(), &["worktree", "prune"]);
        let list = self.server.orchestrator.list(&self.server.boss, Scope::All).await.unwrap();
        if list.workers.iter().all(|view| view.worker.status.is_settled()) {
            must_git(&self.world.repo(), &["gc", "-q", "--prune=now"]);
        } else {
            // By git's manual, `--prune=now` may damage a repository during concurrent writes, so a collection may
            // fail.
            try_git(&self.world.repo(), &["gc", "-q"]);
        }
    }

    async fn integrate(&mut self) {
        let source = self.chance.of(&self.branches()).clone();
        let strategies = [Strategy::Merge, Strategy::Squash, Strategy::CherryPick];
        let request = IntegrationRequest {
            strategy: *self.chance.of(&strategies),
            dry_run: self.chance.coin(),
            ..IntegrationRequest::of(IntegrationSource::Branch(source))
        };
        let contents = self.ledger.findable(&self.world.repo());
        let answer = self.server.orchestrator.integrate(&self.server.boss, request.clone()).await;
        self.log.push(format!("{request:?}\n  {answer:?}"));
        self.check_all_found(&contents);
    }

    async fn create(&mut self) {
        let branch = match self.chance.below(3) {
            0 => self.chance.of(&self.branches()).clone(),
            _ => format!("b{}", self.chance.below(6)),
        };
        let base = self.chance.coin().then(|| self.chance.of(&self.branches()).clone());
        let path = match self.chance.below(5) {
            0 => self.worktrees().first().cloned(),
            1 => Some(self.world.repo().join(format!("inside-{branch}"))),
            _ => None,
        };
        let request = WorktreeRequest { branch, base, path, repo_path: None };
        let contents = self.ledger.findable(&self.world.repo());
        let answer = self.server.orchestrator.create_worktree(&self.server.boss, request.clone()).await;
        self.log.push(format!("{request:?}\n  {:?}", answer.as_ref().map(|made| &made.path)));
        self.check_all_found(&contents);
    }

    /// Performs an action of a worker in its worktree. Content that the worker itself destroys does not count as lost.
    fn work(&mut self, dir: &Path) {
        const KINDS: [&str; 22] = [
            "untracked",
            "modified",
            "staged-changed",
            "staged-gone",
            "commit",
            "reset",
            "amend",
            "detach",
            "orphan",
            "stash",
            "hidden",
            "assume",
            "skip",
            "nested",
            "submodule",
            "no-submodule",
            "conflict",
            "rebase",
            "cherry",
            "odd",
            "copy",
            "branch-gone",
        ];
        let kind = *self.chance.of(&KINDS);
        self.log.push(format!("work {kind} in {}", dir.display()));
        let (one, two) = (self.content(kind), self.content(kind));
        let name = one.trim().replace(' ', "-");
        let file = dir.join(&name);
        let write = |text: &str| fs::write(&file, text).unwrap();
        let run = |args: &[&str]| try_git(dir, args);
        let commit = |text: &str| {
            write(text);
            run(&["add", "-f", &name]) && run(&["commit", "-qm", &name])
        };
        match kind {
            "untracked" => write(&one),
            "modified" => {
                commit(&one);
                write(&two);
            }
            "staged-changed" | "staged-gone" => {
                write(&one);
                run(&["add", "-f", &name]);
                if kind == "staged-gone" { fs::remove_file(&file).unwrap() } else { write(&two) }
            }
            "commit" => drop(commit(&one)),
            "reset" => drop(commit(&one) && run(&["reset", "-q", "--keep", "HEAD~1"])),
            "amend" => {
                commit(&one);
                write(&two);
                run(&["commit", "-qam", "amended", "--amend"]);
            }
            "detach" => drop(run(&["checkout", "-q", "--detach"]) && commit(&one)),
            "orphan" => {
                run(&["checkout", "-q", "--orphan", &name]);
                write(&one);
                run(&["add", "-f", &name]);
            }
            "stash" => {
                write(&one);
                run(&["add", "-f", &name]);
                write(&two);
                run(&["stash", "push", "-q", "-m", &name]);
            }
            "hidden" => {
                let folder = dir.join(format!("{name}-folder"));
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join(".gitignore"), "*\n").unwrap();
                fs::write(folder.join("a"), &one).unwrap();
            }
            "assume" | "skip" => {
                commit(&one);
                run(&["update-index", if kind == "skip" { "--skip-worktree" } else { "--assume-unchanged" }, &name]);
                write(&two);
            }
            "nested" => {
                let inner = dir.join(format!("{name}-repository"));
                fs::create_dir_all(&inner).unwrap();
                commit_in(&inner, &[&["init", "-q"]], &one);
                try_git(&inner, &["tag", "kept-by-a-tag"]);
                try_git(&inner, &["checkout", "-q", "--orphan", "other"]);
                fs::write(inner.join("b"), &two).unwrap();
            }
            "submodule" => {
                run(&["submodule", "--quiet", "update", "--init"]);
                let inner = dir.join("lib");
                if inner.join(".git").exists() {
                    commit_in(&inner, &[], &one);
                    try_git(&inner, &["reset", "-q", "--keep", "HEAD~1"]);
                    fs::write(inner.join(&name), &two).unwrap();
                }
            }
            "no-submodule" => drop(run(&["rm", "-q", "lib"]) && run(&["commit", "-qm", "no library"])),
            "conflict" | "cherry" => {
                run(&["checkout", "-q", "-b", &format!("side-of-{name}")]);
                commit(&one);
                run(&["checkout", "-q", "-b", &format!("other-of-{name}"), "HEAD~1"]);
                commit(&two);
                run(&[if kind == "cherry" { "cherry-pick" } else { "merge" }, &format!("side-of-{name}")]);
                run(&["branch", "-D", &format!("side-of-{name}")]);
            }
            "rebase" => {
                commit(&one);
                run(&["rebase", "-q", "--exec", "false", "HEAD~1"]);
            }
            "odd" => {
                let link = dir.join(format!("{name}\nlink"));
                symlink(one.as_str(), &link).unwrap();
                write(&two);
                fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
                run(&["add", "-N", &name]);
            }
            "copy" => fs::write(dir.join(".env"), &one).unwrap(),
            "branch-gone" => {
                commit(&one);
                let head = Command::new("git").args(["symbolic-ref", "HEAD"]).current_dir(dir).output().unwrap();
                let branch = String::from_utf8_lossy(&head.stdout).trim().to_owned();
                run(&["update-ref", "-d", &branch]);
            }
            other => panic!("no kind {other}"),
        }
    }
}

fn commit_in(inner: &Path, before: &[&[&str]], text: &str) {
    for args in before {
        must_git(inner, args);
    }
    for setting in [["user.name", "N"], ["user.email", "n@localhost"]] {
        must_git(inner, &[&["config"][..], &setting].concat());
    }
    fs::write(inner.join("a"), text).unwrap();
    must_git(inner, &["add", "-f", "a"]);
    must_git(inner, &["commit", "-qm", "a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_worktree_operations_lose_nothing() {
    for seed in seeds(SEEDS) {
        let mut run = Run::new(seed);
        for _ in 0..STEPS {
            let places = run.worktrees();
            match run.chance.below(10) {
                0 | 1 => run.create().await,
                2 => run.integrate().await,
                3 | 4 if !places.is_empty() => {
                    let path = run.chance.of(&places).clone();
                    if run.chance.below(8) == 0 {
                        run.log.push(format!("the user deletes the folder {}", path.display()));
                        fs::remove_dir_all(&path).unwrap();
                    }
                    run.remove(RemovalTarget::Path(path)).await;
                }
                _ if places.is_empty() => run.create().await,
                _ => {
                    let path = run.chance.of(&places).clone();
                    run.work(&path);
                }
            }
        }
        for path in run.worktrees() {
            run.remove(RemovalTarget::Path(path)).await;
        }
    }
}

/// Uses real workers, which are cancelled, receive messages and are retried while their CLIs work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_worker_operations_lose_nothing() {
    const WORKS: [&str; 8] = [
        "write FILE TEXT",
        "write FILE TEXT\ncommit FILE",
        "write FILE TEXT\ncommit FILE\nrun git reset -q --hard HEAD~1",
        "write FILE TEXT\nrun git add FILE && git stash -q",
        "run mkdir -p d-FILE && echo '*' > d-FILE/.gitignore\nwrite d-FILE/a TEXT",
        "write FILE TEXT\ncommit FILE\nrun git checkout -q --detach\nrun git commit -q --amend -m again",
        "write FILE TEXT\nrun git add FILE && rm FILE",
        "write FILE TEXT\ncommit FILE\nrun git update-index --skip-worktree FILE",
    ];
    const ENDS: [&str; 3] = ["result success", "exit 3", "hang"];
    for seed in seeds(3) {
        let mut run = Run::new(seed);
        let mut workers: Vec<String> = Vec::new();
        for step in 0..14 {
            let text = run.content("worker");
            let work = run.chance.of(&WORKS).replace("FILE", &format!("f{step}")).replace("TEXT", text.trim());
            let script = format!("{work}\n{}", run.chance.of(&ENDS));
            let (chosen, before) = if workers.is_empty() {
                (0, BTreeSet::new())
            } else {
                (run.chance.below(workers.len() + 2), run.ledger.findable(&run.world.repo()))
            };
            let Some(worker) = workers.get(chosen).cloned() else {
                let worker = run.server.create_one(mission(&format!("step {step}"), &script)).await;
                run.log.push(format!("create {worker}: {script:?}"));
                workers.push(worker);
                continue;
            };
            let (orchestrator, boss) = (&run.server.orchestrator, &run.server.boss);
            let answer = match run.chance.below(5) {
                0 => format!("cancel: {:?}", orchestrator.cancel(boss, &worker, "enough").await.is_ok()),
                1 => {
                    let prompt = Some(format!("FAKE:\n{script}"));
                    let retry = RetryRequest { prompt, fresh: run.chance.coin(), ..RetryRequest::default() };
                    format!("retry {retry:?}: {:?}", orchestrator.retry(boss, &worker, retry.clone()).await.err())
                }
                2 => {
                    let message =
                        NewMessage { text: format!("FAKE:\n{script}"), delivery: Delivery::WhenReady, by: None };
                    format!("message {script:?}: {:?}", orchestrator.send_message(boss, &worker, message).await.err())
                }
                3 => {
                    let request = IntegrationRequest {
                        strategy: Strategy::Squash,
                        ..IntegrationRequest::of(IntegrationSource::Worker(worker.clone()))
                    };
                    format!("integrate: {:?}", orchestrator.integrate(boss, request).await)
                }
                _ => {
                    let all = run.chance.below(4) == 0;
                    let target = if all { RemovalTarget::AllIntegrated } else { RemovalTarget::Worker(worker.clone()) };
                    run.remove(target).await;
                    "removed".to_owned()
                }
            };
            run.log.push(format!("{worker} {answer}"));
            run.check_all_found(&before);
        }
        for worker in &workers {
            let _ = run.server.orchestrator.cancel(&run.server.boss, worker, "the end").await;
        }
        run.server.wait(&[], CEILING).await;
        for worker in workers {
            run.remove(RemovalTarget::Worker(worker)).await;
        }
    }
}
