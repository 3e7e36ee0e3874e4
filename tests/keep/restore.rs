//! The commands in the answer restore salvaged work.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use orchestrator_boss::orchestrator::{RemovalRequest, RemovalTarget, WorktreeRequest};

use crate::support::git::git;
use crate::world::World;

/// Returns the files below a folder: kind and content of each file, and the target of each link.
fn files(root: &Path) -> BTreeMap<PathBuf, (char, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(root).unwrap().to_owned();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_symlink() {
                found.insert(name, ('l', fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()));
            } else if entry.file_name() != ".git" {
                let executable = path.metadata().unwrap().permissions().mode() & 0o100 != 0;
                found.insert(name, (if executable { 'x' } else { '-' }, fs::read(&path).unwrap()));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn salvaged_files_return_with_name_mode_content() {
    let world = World::new();
    let server = world.server(Some("boss"));
    fs::write(world.repo().join("script"), "#!/bin/sh\n").unwrap();
    fs::write(world.repo().join("gone"), "x\n").unwrap();
    world.git(&["add", "-A"]);
    world.git(&["commit", "-qm", "files"]);
    let request = WorktreeRequest { branch: "work".to_owned(), path: None, base: None, repo_path: None };
    let made = server.orchestrator.create_worktree(&server.boss, request).await.unwrap();
    let dir = &made.path;
    fs::set_permissions(dir.join("script"), PermissionsExt::from_mode(0o755)).unwrap();
    fs::remove_file(dir.join("gone")).unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::write(dir.join("binary"), [0, 255, 10, 13, 10]).unwrap();
    fs::write(dir.join("two\nlines \\ \"*?[x] ä"), "odd\n").unwrap();
    fs::write(dir.join(":(glob)*"), "a pathspec\n").unwrap();
    fs::create_dir_all(dir.join("deep/er")).unwrap();
    fs::write(dir.join("deep/er/-x"), "an option\n").unwrap();
    // Only some file systems accept a name that is not UTF-8.
    let _ = fs::write(dir.join(OsStr::from_bytes(b"no\xffutf8")), "name\n");
    symlink("nowhere/\u{e4}", dir.join("link")).unwrap();
    symlink("deep", dir.join("folder-link")).unwrap();
    fs::write(dir.join("README"), "staged\n").unwrap();
    git(dir, &["add", "README"]);
    fs::write(dir.join("README"), "and changed\n").unwrap();
    fs::write(dir.join("announced"), "announced\n").unwrap();
    git(dir, &["add", "-N", "announced"]);
    let before = files(dir);

    let target = RemovalTarget::Path(dir.clone());
    let request = RemovalRequest { target, repo_path: None, force: true, delete_branch: true };
    let answer = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    let name = answer.removed[0].salvage_ref.clone().expect("a salvage ref");
    assert!(!dir.exists() && answer.removed[0].branch_deleted, "{answer:?}");
    world.git(&["reflog", "expire", "--expire=now", "--all"]);
    world.git(&["gc", "-q", "--prune=now"]);

    let restored = world.path("restored");
    world.git(&["worktree", "add", "-q", "--detach", restored.to_str().unwrap(), &name]);
    assert_eq!(files(&restored), before);
    assert_eq!(world.git(&["show", &format!("{name}^2:README")]), "staged");
    assert_eq!(git(&restored, &["status", "--porcelain"]), "");
    git(&restored, &["reset", "-q", &format!("{name}^")]);
    let status = git(&restored, &["status", "--porcelain"]);
    for line in [" M script", " D gone", "?? empty", " M README"] {
        assert!(format!(" {status}").contains(line), "{line} in {status}");
    }
}

/// Checks that large files are streamed. Runs only with `KEEP_LARGE=1`, since it writes 300 MB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_file_is_salvaged_in_little_memory() {
    let megabytes = if std::env::var_os("KEEP_LARGE").is_some() { 300 } else { 40 };
    let world = World::new();
    let server = world.server(Some("boss"));
    let request = WorktreeRequest { branch: "work".to_owned(), path: None, base: None, repo_path: None };
    let made = server.orchestrator.create_worktree(&server.boss, request).await.unwrap();
    let file = fs::File::create(made.path.join("large")).unwrap();
    file.set_len(megabytes << 20).unwrap();
    let target = RemovalTarget::Path(made.path.clone());
    let request = RemovalRequest { target, repo_path: None, force: true, delete_branch: false };
    let answer = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    let name = answer.removed[0].salvage_ref.clone().expect("a salvage ref");
    let size = world.git(&["cat-file", "-s", &format!("{name}:large")]);
    assert_eq!(size, (megabytes << 20).to_string());
}
