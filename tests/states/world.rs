//! The repository of one case and its surroundings, made with plain git, and helpers that inspect it from outside.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::git::{commit_all, identify, seal};
pub use crate::support::git::{git, try_git};
use crate::support::sandbox::{PROGRAM, fake_backend};

use crate::case::{Case, Checkout, Layout, Names, Neighbour, Submodule};

/// Text in the user's uncommitted files. It must neither move nor be merged as a worker's work.
pub const USERS_MARK: &str = "the-users-own";
/// A file of the newest commit, which the user removes in some cases while the worker runs.
pub const TAKEN_BACK: &str = "taken-back.txt";

pub struct World {
    folder: tempfile::TempDir,
    /// The directory in which the boss is started.
    pub boss: PathBuf,
    /// The working tree of the integration branch; in a bare layout the repository itself.
    pub checkout: PathBuf,
    pub integration: &'static str,
    /// Paths of all files on the integration branch at the beginning.
    pub first_files: BTreeSet<String>,
    pub first_branches: BTreeSet<String>,
}

impl World {
    pub fn new(case: &Case) -> Self {
        let folder = tempfile::Builder::new().prefix("states-").tempdir().expect("a temporary folder");
        let root = folder.path().canonicalize().expect("an existing path");
        let seed = root.join("seed");
        make_seed(&seed, case);
        let (boss, checkout, integration) = lay_out(&root, &seed, case);
        give_names(&checkout, case, integration);
        add_neighbour(&root, &checkout, case);
        dirty(&checkout, case);
        let files = git(&checkout, &["ls-tree", "-r", "-z", "--name-only", &branch_ref(integration)]);
        let first_files = files.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let mut world = Self { folder, boss, checkout, integration, first_files, first_branches: BTreeSet::new() };
        world.first_branches = world.branches();
        world.write_settings(case);
        world
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().expect("an existing path")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Returns a path outside of the repository that confined workers can write.
    pub fn shared(&self, name: &str) -> PathBuf {
        self.path("shared").join(name)
    }

    pub fn git(&self, args: &[&str]) -> String {
        git(&self.checkout, args)
    }

    pub fn integration_ref(&self) -> String {
        branch_ref(self.integration)
    }

    pub fn branches(&self) -> BTreeSet<String> {
        let listed = self.git(&["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Returns the server's command, without any configuration of the user.
    pub fn server(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.path("config.toml")).current_dir(&self.boss);
        command.env("HOME", self.path("home")).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
        command.env("CLAUDE_CODE_SESSION_ID", "states").env_remove("ORCHESTRATOR_MAX_WORKERS");
        seal(&mut command);
        command
    }

    fn write_settings(&self, case: &Case) {
        for folder in [self.path("home"), self.shared("")] {
            fs::create_dir_all(folder).expect("a folder");
        }
        let sharing = format!("confine_writable = [{:?}]\n", self.shared(""));
        let settings = format!("{sharing}commit_leftovers = {}\n{}", case.commit_leftovers, fake_backend("fake"));
        fs::write(self.path("config.toml"), settings).expect("a settings file");
    }

    /// Keeps the files after a failure, and returns their folder.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

/// Creates a repository with three commits on `main`, and a branch `rival` that changes the shared file.
fn make_seed(seed: &Path, case: &Case) {
    fs::create_dir_all(seed.join("packages/app")).expect("a folder");
    git(seed, &["init", "-q", "-b", "main"]);
    identify(seed);
    fs::write(seed.join("shared.txt"), "first\n").expect("a file");
    fs::write(seed.join("other.txt"), "other\n").expect("a file");
    fs::write(seed.join("packages/app/code.txt"), "code\n").expect("a file");
    fs::write(seed.join(".gitignore"), "*.ignored\n").expect("a file");
    if case.submodule != Submodule::None {
        add_submodule(seed);
    }
    commit_all(seed, "first");
    fs::write(seed.join("older.txt"), "older\n").expect("a file");
    commit_all(seed, "second");
    fs::write(seed.join(TAKEN_BACK), "taken back\n").expect("a file");
    commit_all(seed, "third");
    git(seed, &["checkout", "-q", "-b", "rival"]);
    fs::write(seed.join("shared.txt"), "rival\n").expect("a file");
    fs::write(seed.join("rival.txt"), "rival\n").expect("a file");
    commit_all(seed, "rival");
    git(seed, &["checkout", "-q", "main"]);
}

fn add_submodule(seed: &Path) {
    let library = seed.with_file_name("library");
    fs::create_dir_all(&library).expect("a folder");
    git(&library, &["init", "-q", "-b", "main"]);
    identify(&library);
    fs::write(library.join("library.txt"), "library\n").expect("a file");
    commit_all(&library, "library");
    let url = library.to_str().expect("UTF-8");
    git(seed, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "library"]);
}

/// Creates the layout. Returns the boss's directory, the checkout of the integration branch, and that branch.
fn lay_out(root: &Path, seed: &Path, case: &Case) -> (PathBuf, PathBuf, &'static str) {
    let repo = root.join("repo");
    let clone = |target: &Path, options: &[&str]| {
        let (from, to) = (seed.to_str().expect("UTF-8"), target.to_str().expect("UTF-8"));
        git(root, &[&["clone", "-q"], options, &[from, to]].concat());
        git(target, &["fetch", "-q", "origin", "rival:rival"]);
        identify(target);
    };
    let (boss, checkout, integration) = match case.layout {
        Layout::Plain => {
            clone(&repo, &[]);
            (repo.clone(), repo.clone(), "main")
        }
        Layout::Subfolder => {
            clone(&repo, &[]);
            (repo.join("packages/app"), repo.clone(), "main")
        }
        Layout::LinkedWorktree => {
            clone(&repo, &[]);
            let linked = root.join("linked");
            git(&repo, &["worktree", "add", "-q", "-b", "feature", linked.to_str().expect("UTF-8")]);
            (linked.clone(), linked, "feature")
        }
        Layout::WorktreeOfBare | Layout::Bare => {
            let bare = root.join("repo.git");
            let (from, to) = (seed.to_str().expect("UTF-8"), bare.to_str().expect("UTF-8"));
            git(root, &["clone", "-q", "--bare", from, to]);
            identify(&bare);
            git(&bare, &["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"]);
            if case.layout == Layout::Bare {
                return (bare.clone(), bare, "main");
            }
            git(&bare, &["worktree", "add", "-q", repo.to_str().expect("UTF-8"), "main"]);
            (repo.clone(), repo.clone(), "main")
        }
        Layout::Submodule | Layout::SubmoduleWithWorktreeConfig => {
            fs::create_dir(&repo).expect("a folder");
            git(&repo, &["init", "-q", "-b", "main"]);
            identify(&repo);
            let url = seed.to_str().expect("UTF-8");
            git(&repo, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "part"]);
            commit_all(&repo, "with a submodule");
            let part = repo.join("part");
            identify(&part);
            git(&part, &["fetch", "-q", "origin", "rival:rival"]);
            if case.layout == Layout::SubmoduleWithWorktreeConfig {
                git(&part, &["config", "extensions.worktreeConfig", "true"]);
            }
            (part.clone(), part, "main")
        }
    };
    if case.submodule == Submodule::Filled {
        git(&checkout, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init"]);
    }
    (boss, checkout, integration)
}

fn give_names(checkout: &Path, case: &Case, integration: &str) {
    let older = format!("{}~1", branch_ref(integration));
    match case.names {
        Names::Plain => {}
        Names::TagLikeIntegration => drop(git(checkout, &["tag", integration, &older])),
        Names::RemoteLikeIntegration => {
            git(checkout, &["update-ref", &format!("refs/remotes/origin/{integration}"), &older]);
        }
        Names::TagLikeWorker => drop(git(checkout, &["tag", "orchestrator/w-1-state", &older])),
    }
}

fn add_neighbour(root: &Path, checkout: &Path, case: &Case) {
    if case.neighbour == Neighbour::None {
        return;
    }
    let folder = root.join("neighbour");
    let path = folder.to_str().expect("UTF-8");
    git(checkout, &["worktree", "add", "-q", "-b", "neighbour", path, "rival"]);
    match case.neighbour {
        Neighbour::Locked => drop(git(checkout, &["worktree", "lock", path])),
        Neighbour::FolderGone => fs::remove_dir_all(&folder).expect("it can be removed"),
        _ => {}
    }
}

fn dirty(checkout: &Path, case: &Case) {
    let write = |name: &str| fs::write(checkout.join(name), format!("{USERS_MARK}\n")).expect("a file");
    match case.checkout {
        Checkout::Clean => {}
        Checkout::EditedElsewhere => write("other.txt"),
        Checkout::StagedElsewhere => {
            write("other.txt");
            git(checkout, &["add", "other.txt"]);
        }
        Checkout::Untracked => write("notes.txt"),
        Checkout::EditedSame => write("shared.txt"),
        Checkout::UntrackedSame => write("w0-plain.txt"),
        Checkout::UnfinishedMerge => {
            git(checkout, &["merge", "-q", "--no-commit", "--no-ff", "rival"]);
        }
    }
}

pub fn branch_ref(branch: &str) -> String {
    format!("refs/heads/{branch}")
}
