//! The attacks, each a shell script of one line. It runs in the worktree, and its exit status says whether it succeeded.
//!
//! `$ROOT` is the home folder, `$REPO` the main checkout, `$MINE` a file of the user outside (another one for each
//! attack), and `$VICTIM` an unconfined process of the user with the current directory `$ROOT/user`.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::git::{commit_all, identify};
use crate::support::sandbox::{mission, with};
use crate::world::{World, run};

/// Attacks that the confinement keeps from succeeding.
const CLOSED: [(&str, &str); 26] = [
    ("write", "echo new > $MINE"),
    ("append", "echo new >> $MINE"),
    ("truncate", "perl -e 'truncate($ARGV[0], 0) or exit 1' $MINE"),
    ("delete", "rm $MINE"),
    ("create", "touch $MINE.new"),
    ("make-folder", "mkdir $MINE.folder"),
    ("checkout-write", "echo new > $REPO/README"),
    ("checkout-create", "touch $REPO/new"),
    ("sibling-write", "echo new > $REPO.worktrees/sibling/file"),
    ("worktree-create", "mkdir $REPO.worktrees/planted"),
    ("state-write", "touch $REPO/.orchestrator/planted"),
    ("record-write", "touch $REPO/.orchestrator/workers/planted"),
    ("profile-append", "echo new >> $ROOT/.profile"),
    ("git-settings", "git config --file $ROOT/.gitconfig core.pager evil"),
    ("keys-append", "echo key >> $ROOT/.ssh/authorized_keys"),
    ("claude-settings", "echo {} > $ROOT/.claude.json"),
    ("path-program", "touch $ROOT/.cargo/bin/git"),
    ("shared-temporary", "touch $ROOT/../ob-planted-$$ && rm $ROOT/../ob-planted-$$"),
    ("rename-in", "mv $MINE stolen"),
    ("rename-out", "echo new > own && mv own $MINE"),
    ("hard-link", "ln $MINE hard && echo new >> hard"),
    ("soft-link", "ln -s $MINE soft && echo new >> soft"),
    ("by-own-root", "echo new >> /proc/self/root$MINE"),
    ("by-victims-root", "echo new >> /proc/$VICTIM/root$MINE"),
    ("by-victims-directory", "echo new >> /proc/$VICTIM/cwd/by-victims-directory"),
    ("hook-by-link", "ln -s $ROOT/user/hook-by-link $REPO/.git/refs/link && echo new > $REPO/.git/refs/link"),
];

/// Attacks that succeed where the kernel cannot scope signals and abstract sockets.
const SCOPED: [(&str, &str); 2] = [
    ("signal", "kill -CONT $VICTIM"),
    ("abstract-socket", "perl -MIO::Socket -e 'IO::Socket::UNIX->new(Peer => \"\\0$ARGV[0]\") or exit 1' $ABSTRACT"),
];

/// Attacks that succeed in any case. The README names them.
const OPEN: [(&str, &str); 5] = [
    ("read", "cat $MINE"),
    ("change-mode", "chmod 600 $MINE"),
    ("change-time", "touch -c -d @0 $MINE"),
    ("path-socket", "perl -MIO::Socket -e 'IO::Socket::UNIX->new(Peer => $ARGV[0]) or exit 1' $ROOT/user/socket"),
    ("local-network", "perl -MIO::Socket -e 'IO::Socket::INET->new(PeerAddr => $ARGV[0]) or exit 1' 127.0.0.1:$PORT"),
];

/// Attacks on the user's repository. A worker that has a clone cannot do them.
const ON_REPOSITORY: [(&str, &str); 10] = [
    ("hook", "echo true > $REPO/.git/hooks/post-checkout"),
    ("configuration", "git --git-dir=$REPO/.git config alias.planted status"),
    ("other-branch", "git --git-dir=$REPO/.git update-ref refs/heads/planted main"),
    (
        "main-branch",
        "G=$REPO/.git && git --git-dir=$G update-ref refs/heads/main $(git --git-dir=$G commit-tree -p main -m x main^{tree})",
    ),
    ("others-branch", "git --git-dir=$REPO/.git update-ref refs/heads/orchestrator/planted main"),
    ("object", "touch $REPO/.git/objects/planted"),
    ("alternates", "touch $REPO/.git/objects/info/alternates"),
    ("excludes", "echo '# planted' >> $REPO/.git/info/exclude"),
    ("own-records", "touch $REPO/.git/worktrees/w-1-attack/planted"),
    ("packed", "git --git-dir=$REPO/.git pack-refs --all"),
];

/// The programs of the user that the attacks reach for.
struct Victims {
    process: Child,
    port: u16,
    name: String,
    _listeners: (UnixListener, UnixListener, TcpListener),
}

impl Victims {
    fn start(world: &World) -> Self {
        let root = world.sandbox.root();
        for folder in ["user", ".ssh", ".cargo/bin", "repo.worktrees/sibling"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in [".profile", ".ssh/authorized_keys", ".claude.json", "repo.worktrees/sibling/file"] {
            fs::write(root.join(file), "old\n").unwrap();
        }
        for (name, _) in CLOSED.iter().chain(&SCOPED).chain(&OPEN).chain(&ON_REPOSITORY) {
            fs::write(root.join("user").join(name), "old\n").unwrap();
        }
        let name = format!("ob-test-{}", root.file_name().unwrap().to_string_lossy());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let listeners = (
            UnixListener::bind(root.join("user/socket")).unwrap(),
            UnixListener::bind_addr(&abstract_address).unwrap(),
            tcp,
        );
        let mut sleep = Command::new("sleep");
        sleep.arg("600").current_dir(root.join("user")).stdin(Stdio::null());
        let port = listeners.2.local_addr().unwrap().port();
        Self { process: sleep.spawn().unwrap(), port, name, _listeners: listeners }
    }

    /// Writes a script that tries all attacks and writes to `results` which succeeded.
    fn script(&self, world: &World) -> String {
        let root = world.sandbox.root();
        let values = [
            ("ROOT", root.display().to_string()),
            ("REPO", world.sandbox.repo().display().to_string()),
            ("VICTIM", self.process.id().to_string()),
            ("ABSTRACT", self.name.clone()),
            ("PORT", self.port.to_string()),
        ];
        let mut script: String = values.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        for (name, attack) in CLOSED.iter().chain(&SCOPED).chain(&OPEN).chain(&ON_REPOSITORY) {
            script.push_str(&format!(
                "MINE=$ROOT/user/{name}\nif ( {attack} ) >/dev/null 2>\"$TMPDIR/why\"; then echo {name} succeeded; else echo {name} failed; fi >> results\n"
            ));
        }
        let path = world.path("attacks.sh");
        fs::write(&path, script).unwrap();
        format!("sh {}", path.display())
    }
}

impl Drop for Victims {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns for each attack whether it succeeded.
fn results(text: &str) -> BTreeMap<String, bool> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, result)| (name.to_owned(), result == "succeeded")).collect()
}

/// The way in which the script is run.
#[derive(Clone, Copy)]
enum By {
    Cli,
    Setup,
    Verification,
}

/// Tries all attacks in a world with these settings, and returns which succeeded.
fn attack(world: &World, by: By, variables: &[(&str, &str)]) -> BTreeMap<String, bool> {
    let victims = Victims::start(world);
    let script = victims.script(world);
    let mission = match by {
        By::Cli => mission("attack", &format!("run TMPDIR=${{TMPDIR:-.}} {script}")),
        By::Setup => with(mission("attack", "say done"), "setup_command", script),
        By::Verification => with(mission("attack", "say done"), "verify_command", script),
    };
    let mut boss = world.boss_with(variables);
    let worker = run(&mut boss, mission);
    let text = fs::read_to_string(world.sandbox.worktree("w-1-attack").join("results"));
    boss.leave();
    results(&text.unwrap_or_else(|error| panic!("{error}: {worker:#}")))
}

/// Checks which attacks succeeded. `is_scoped`: the kernel refuses signals and abstract sockets.
fn check(tried: &BTreeMap<String, bool>, is_confined: bool, is_scoped: bool) {
    check_all(tried, is_confined, is_scoped, false);
}

/// Checks the same for a worker that has a clone.
fn check_clone(tried: &BTreeMap<String, bool>) {
    check_all(tried, true, scopes_signals(), true);
}

fn check_all(tried: &BTreeMap<String, bool>, is_confined: bool, is_scoped: bool, has_clone: bool) {
    let mut wrong = Vec::new();
    let expected =
        [(&CLOSED[..], !is_confined), (&SCOPED[..], !is_scoped), (&OPEN[..], true), (&ON_REPOSITORY[..], !has_clone)];
    for (attacks, is_open) in expected {
        for (name, _) in attacks {
            match tried.get(*name) {
                Some(succeeded) if *succeeded == is_open => {}
                found => wrong.push(format!("{name}: {found:?}, expected to succeed: {is_open}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn scopes_signals() -> bool {
    use orchestrator_boss::process::confine::{Restriction, Support, support};
    matches!(support(), Support::Yes(Restriction { signals: true, .. }))
}

#[test]
fn confined_cli_writes_only_its_own() {
    let Some(world) = World::new("") else { return };
    check(&attack(&world, By::Cli, &[]), true, scopes_signals());
    for untouched in
        [".profile", ".claude.json", ".ssh/authorized_keys", "user/write", "user/soft-link", "user/rename-in"]
    {
        assert_eq!(fs::read_to_string(world.path(untouched)).unwrap(), "old\n", "{untouched}");
    }
}

#[test]
fn confined_cli_writes_only_its_own_with_reftable() {
    let Some(world) = World::new("") else { return };
    if uses_reftable(&world) {
        check(&attack(&world, By::Cli, &[]), true, scopes_signals());
    }
}

/// Creates the repository again with the other way to store refs. Returns whether this git can.
fn uses_reftable(world: &World) -> bool {
    let repo = world.sandbox.repo();
    fs::remove_dir_all(repo.join(".git")).unwrap();
    let mut init = world.sandbox.bare_command("git");
    let can = init.args(["init", "-q", "-b", "main", "--ref-format=reftable"]).output().unwrap().status.success();
    if can {
        identify(&repo);
        commit_all(&repo, "first");
        assert!(repo.join(".git/reftable").exists());
    } else {
        assert!(std::env::var_os("CI").is_none(), "git does not know reftable");
        eprintln!("SKIPPED: git does not know reftable");
    }
    can
}

#[test]
fn commands_of_the_user_in_between_harm_no_worker() {
    for is_reftable in [false, true] {
        let Some(world) = World::new("") else { return };
        if is_reftable && !uses_reftable(&world) {
            return;
        }
        let mut boss = world.boss();
        let worker = run(&mut boss, mission("t", "write a.txt x\ncommit a"));
        assert_eq!(worker["status"], "completed", "{worker:#}");
        for command in [&["gc", "-q"][..], &["pack-refs", "--all"], &["config", "user.note", "x"]] {
            world.sandbox.git(command);
        }
        let script = "run git revert --no-edit HEAD\nrun git branch other\nrun git tag mine\nwrite b.txt x\ncommit b";
        boss.succeed("retry_worker", json!({"worker_id": "w-1-t", "prompt": format!("FAKE:\n{script}")}));
        let worker = crate::world::settled(&mut boss, "w-1-t");
        let found = (&worker["status"], &worker["enforced"], &worker["attempt"]);
        assert_eq!(found, (&json!("completed"), &json!("kernel"), &json!(2)), "reftable: {is_reftable}: {worker:#}");
        boss.leave();
    }
}

#[test]
fn confined_setup_writes_only_its_own() {
    let Some(world) = World::new("") else { return };
    check(&attack(&world, By::Setup, &[]), true, scopes_signals());
}

#[test]
fn confined_verification_writes_only_its_own() {
    let Some(world) = World::new("") else { return };
    check(&attack(&world, By::Verification, &[]), true, scopes_signals());
}

#[test]
fn worker_with_a_clone_writes_nothing_of_the_repository() {
    for by in [By::Cli, By::Setup, By::Verification] {
        let Some(world) = World::new("confine_git = \"clone\"") else { return };
        check_clone(&attack(&world, by, &[]));
    }
}

#[test]
fn every_attack_succeeds_without_confinement() {
    let world = World::anywhere("confine = \"off\"");
    check(&attack(&world, By::Cli, &[]), false, false);
}

#[test]
fn older_kernel_closes_less() {
    let Some(_) = World::new("") else { return };
    for (abi, is_confined) in [("3", true), ("5", true), ("2", false), ("0", false)] {
        let world = World::anywhere("");
        check(&attack(&world, By::Cli, &[("ORCHESTRATOR_TEST_LANDLOCK_ABI", abi)]), is_confined, false);
    }
}
