//! In a directory of the user only the worker makes changes: the program never commits, resets, cleans, checks out or
//! stashes there, however the worker ends. The index must be byte-identical, since the program never refreshes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use orchestrator_boss::mission::create::DraftPlace;
use orchestrator_boss::orchestrator::{RemovalRequest, RemovalTarget, RetryRequest};
use orchestrator_boss::process::{Signal, send};

use crate::support::git::git;
use crate::support::wait::in_time;
use crate::world::{World, mission};

/// Files of the program itself: the state folder, its line in `info/exclude`, and the lock beside it.
const OURS: [&str; 3] = [".orchestrator", "exclude", "orchestrator-boss.lock"];

/// Returns all files below with their content, including git's own (HEAD, index, refs, reflogs, configuration,
/// stashes).
fn picture(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    // Temporary files of other processes may disappear meanwhile.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if OURS.iter().any(|ours| name == *ours) {
            continue;
        }
        let bytes = match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                found.extend(picture(&path));
                continue;
            }
            Ok(kind) if kind.is_symlink() => fs::read_link(&path).map(|to| to.into_os_string().into_encoded_bytes()),
            _ => fs::read(&path),
        };
        if let Ok(bytes) = bytes {
            found.insert(path, bytes);
        }
    }
    found
}

/// Creates uncommitted work of the user that a careless git command would change.
fn make_dirty(dir: &Path) {
    fs::write(dir.join("stashed"), "s\n").unwrap();
    git(dir, &["add", "stashed"]);
    git(dir, &["stash", "-q"]);
    fs::write(dir.join("staged"), "1\n").unwrap();
    git(dir, &["add", "staged"]);
    fs::write(dir.join("staged"), "2\n").unwrap();
    fs::write(dir.join("untracked"), "u\n").unwrap();
    // The same content with another time, for which `git status` would update the index.
    let readme = fs::File::options().write(true).open(dir.join("README")).unwrap();
    readme.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(5_000)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_directory_is_unchanged_after_every_ending() {
    let world = World::new();
    world.git(&["worktree", "add", "-q", "-b", "theirs", world.path("linked").to_str().unwrap()]);
    world.git(&["worktree", "add", "-q", "--detach", world.path("detached").to_str().unwrap()]);
    world.git(&["clone", "-q", "--bare", ".", world.path("bare.git").to_str().unwrap()]);
    fs::create_dir(world.path("plain")).unwrap();
    fs::write(world.path("plain").join("notes"), "n\n").unwrap();
    for dir in [world.repo(), world.path("linked"), world.path("detached")] {
        make_dirty(&dir);
    }
    let server = world.server(Some("boss"));
    let all = world.repo().parent().unwrap().to_owned();
    let before = picture(&all);
    let places =
        [world.repo(), world.path("linked"), world.path("detached"), world.path("bare.git"), world.path("plain")];
    let endings = [
        ("say x", None, "completed"),
        ("exit 3", None, "failed"),
        ("say x", Some("exit 1"), "failed"),
        ("say here\nhang", None, "cancelled"),
        ("say here\nhang", None, "lost"),
    ];
    for place in &places {
        for (script, verify, ends) in endings {
            // Detecting a dead supervisor takes a while and is independent of the directory.
            if ends == "lost" && *place != world.repo() {
                continue;
            }
            let mut draft = mission("in the user's own", script);
            draft.place = DraftPlace::Directory(place.clone());
            draft.verify_command = verify.map(str::to_owned);
            let id = server.create_one(draft).await;
            if ends == "cancelled" {
                server.until(&id, "running").await;
                server.orchestrator.cancel(&server.boss, &id, "enough").await.unwrap();
            }
            if ends == "lost" {
                server.until(&id, "running").await;
                let mut live = None;
                let is_known = in_time(async || {
                    live = server.orchestrator.get(&id).await.unwrap().live;
                    live.is_some()
                });
                assert!(is_known.await);
                send(&live.expect("a running attempt").supervisor, Signal::Kill);
            }
            server.until(&id, ends).await;
            let retry =
                RetryRequest { prompt: Some("FAKE:\nsay again".to_owned()), fresh: true, ..RetryRequest::default() };
            if ends == "failed" {
                server.orchestrator.retry(&server.boss, &id, retry).await.unwrap();
                server.until(&id, if verify.is_some() { "failed" } else { "completed" }).await;
            }
            for target in [RemovalTarget::Worker(id.clone()), RemovalTarget::Path(place.clone())] {
                let request = RemovalRequest { target, repo_path: None, force: true, delete_branch: true };
                let answer = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
                assert!(
                    answer.kept[0].why.to_string().contains("own directory"),
                    "{} {ends}: {answer:?}",
                    place.display()
                );
            }
            let mut changed = Vec::new();
            let is_the_same = in_time(async || {
                let after = picture(&all);
                changed = before
                    .iter()
                    .filter(|(path, bytes)| after.get(*path) != Some(bytes))
                    .map(|(path, _)| path.clone())
                    .chain(after.keys().filter(|path| !before.contains_key(*path)).cloned())
                    .collect();
                changed.is_empty()
            });
            assert!(is_the_same.await, "{} {ends}: {changed:?}", place.display());
        }
    }
}
