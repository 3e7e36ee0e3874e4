//! Rows for the time before the work: the setup and the seeding of a worktree, and the start through npm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use orchestrator_boss::git::{self, Repository, Trust};

use super::spawn::{FILES, in_worktrees};
use crate::clock;
use crate::table::{Line, Sides};
use crate::world::{World, rest, text};

/// Files in the folder that is seeded, fifty in each of its folders.
const SEEDED: usize = 50_000;

pub fn setup() -> Vec<Line> {
    let sides = in_worktrees(31, Some("true"));
    let what =
        format!("`create_worker_mission` with a setup command that does nothing ({FILES} files) → first instruction");
    vec![sides.plus(&what, "`git worktree add`, `sh -c true`, then fork and exec", 15.0, 40.0)]
}

pub fn seed() -> Vec<Line> {
    let world = World::with_repository(FILES);
    let repo = world.repo();
    fs::write(repo.join(".gitignore"), "/cache/\n").expect("a file");
    let content = text(0, 20);
    for number in 0..SEEDED {
        let folder = repo.join(format!("cache/{}", number / 50));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(number.to_string()), &content).expect("a file");
    }
    let repository = Repository::discover(&repo, &Trust::nothing()).expect("a readable folder").expect("a repository");
    let (source, paths) = (repo.join("cache"), ["cache".to_owned()]);
    let clones = can_clone(&source, &world.path("cloned"));
    let mut sides = Sides::default();
    for number in 0..6 {
        let (ours_at, floor_at) = (world.place(&format!("ours-{number}")), world.place(&format!("floor-{number}")));
        rest();
        let began = clock::now();
        let seeded = git::seed(&repository, &ours_at, &paths, u64::MAX).expect("git answers");
        let ours = clock::between(began, clock::now());
        assert!(seeded.left_out.is_empty(), "{:?}", seeded.left_out);
        rest();
        let began = clock::now();
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&source).arg(&floor_at));
        let floor = clock::between(began, clock::now());
        if number > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    let how = if clones { "by reflink" } else { "copied" };
    let what = format!("seed of {SEEDED} files, {how}");
    vec![sides.times(&what, "`cp -a --reflink=auto`", 1.25)]
}

fn can_clone(folder: &Path, target: &Path) -> bool {
    let sample = folder.join("0/0");
    let cloned = Command::new("cp").arg("--reflink=always").arg(sample).arg(target).stderr(Stdio::null()).status();
    cloned.expect("cp runs").success()
}

pub fn npm() -> Vec<Line> {
    let world = World::plain();
    let launcher = npm_folder(&world.path("npm"));
    let mut sides = Sides::default();
    for number in 0..31 {
        rest();
        let began = clock::now();
        run(Command::new("node").arg(&launcher).arg("--version"));
        let ours = clock::between(began, clock::now());
        rest();
        let began = clock::now();
        run(Command::new("node").args(["-e", "0"]));
        let floor = clock::between(began, clock::now());
        if number > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    vec![sides.times("`--version` by the launcher that npx starts", "`node -e 0`", 1.25)]
}

/// Creates the installed npm packages with the built program, and returns the path of the launcher.
fn npm_folder(root: &Path) -> PathBuf {
    let platform = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-x64" };
    let (package, bin) =
        (root.join("orchestrator-boss"), root.join(format!("node_modules/orchestrator-boss-{platform}/bin")));
    for folder in [&package, &bin] {
        fs::create_dir_all(folder).expect("a folder");
    }
    let launcher = package.join("run.js");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/.npm/run.js"), &launcher).expect("the launcher");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_orchestrator-boss"), bin.join("orchestrator-boss")).expect("a link");
    launcher
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("the program runs");
    assert!(status.success(), "{command:?} ended with {status}");
}
