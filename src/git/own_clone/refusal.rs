//! The reasons why a worker gets no clone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Place;
use super::make::Setting;
use crate::git::command::CommandError;
use crate::git::repository::Repository;

/// Extensions of a repository that a clone has too, or does not need.
const EXTENSIONS: [&str; 5] = ["objectformat", "refstorage", "worktreeconfig", "preciousobjects", "noop"];

/// Returns why a worker in this worktree cannot have a clone; `None` if it can.
pub fn refusal(repo: &Repository, worktree: &Path) -> Result<Option<String>, CommandError> {
    let Some(place) = Place::of(repo, worktree) else {
        return Ok(Some("git has no record of its worktree".to_owned()));
    };
    let common = &repo.common_dir;
    let device = |path: &Path| path.metadata().map(|it| it.dev()).ok();
    let why = if !common.to_str().is_some_and(|path| !path.contains('\n') && !path.starts_with('"')) {
        "git cannot borrow objects from a path like that of the repository"
    } else if device(worktree) != device(&place.own) {
        "its worktree is on another file system than the repository"
    } else if worktree.join(".gitmodules").exists() || place.own.join("modules").exists() {
        "the repository has submodules"
    } else if common.join("annex").exists() {
        "the repository uses git-annex"
    } else if common.join("lfs").exists() || uses_lfs(&place)? {
        "the repository uses git-lfs"
    } else {
        return Ok(refused_setting(&Setting::all(&place)?));
    };
    Ok(Some(why.to_owned()))
}

fn uses_lfs(place: &Place) -> Result<bool, CommandError> {
    let names = ["ls-files", "-z", "--", ":(top,glob)**/.gitattributes"];
    let listed = crate::git::command::Git::read(&place.repo.at(place.worktree)).args(names).run()?;
    let listed = String::from_utf8_lossy(&listed);
    let files = listed.split_terminator('\0').map(|name| place.worktree.join(name));
    let mut files = files.chain([place.repo.common_dir.join("info/attributes")]);
    Ok(files.any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("filter=lfs"))))
}

fn refused_setting(settings: &[Setting]) -> Option<String> {
    settings.iter().find_map(|Setting { name, value }| {
        let is_set = value.as_deref() != Some("false");
        if name == "extensions.partialclone" || name.ends_with(".promisor") && is_set {
            return Some("the repository is a partial clone".to_owned());
        }
        let extension = name.strip_prefix("extensions.")?;
        (!EXTENSIONS.contains(&extension)).then(|| format!("the repository has the extension {extension}"))
    })
}
