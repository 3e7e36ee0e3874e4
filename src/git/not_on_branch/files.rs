//! Files of the worktree that no commit holds: uncommitted ones, conflicts, and changed copies.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{UNCOMMITTED, WorkScan, names, part, shown};
use crate::git::index::{IndexError, marked_unchanged, status_despite_marks};
use crate::git::nested::bare_repositories;
use crate::git::status::{StatusEntry, operation_in_progress_in};
use crate::mission::outcome::{NotOnBranch, PartFiles};
use crate::mission::words::count;

impl WorkScan<'_> {
    /// Lists unfinished operations, conflicts, uncommitted files and unreadable ones.
    pub(super) fn files(&self) -> Vec<NotOnBranch> {
        let mut parts = Vec::new();
        let place = || shown(self.examined.worktree);
        let (conflicts, entries) = self.uncommitted();
        let operation = operation_in_progress_in(&self.git_dir);
        // An unfinished bisect alone is not work.
        let is_work = operation.is_some_and(|it| it != "bisect") || !conflicts.is_empty();
        if is_work {
            let what = match (operation, conflicts.is_empty()) {
                (Some(operation), true) => format!("{} that is not finished", with_article(operation)),
                (Some(operation), false) => {
                    format!("{} that is not finished, with conflicts in {}", with_article(operation), names(&conflicts))
                }
                (None, _) => format!("files with conflicts: {}", names(&conflicts)),
            };
            parts.push(part(what, place(), how_to_finish(operation)));
        }
        if !entries.is_empty() {
            let how = format!("commit it there on branch {}{}", self.branch, self.why_uncommitted(operation));
            let what = format!("{}: {}", count(entries.len(), UNCOMMITTED), names(&entries));
            parts.push(NotOnBranch { files: Some(PartFiles::Uncommitted), ..part(what, place(), how) });
        }
        let changed = self.examined.copies.iter().filter(|copy| copy.is_changed(self.examined.worktree));
        let changed: Vec<String> = changed.map(|copy| copy.path.clone()).collect();
        if !changed.is_empty() {
            let what = format!("changes of files that were copied there by .worktreeinclude: {}", names(&changed));
            parts.push(part(what, place(), "copy the changes to keep to the main checkout by hand".to_owned()));
        }
        if let Some(complaint) = &self.status.complaint {
            let what = format!("files that git cannot read: {}", complaint.replace('\n', "; "));
            parts.push(part(what, place(), "make them readable and commit them there".to_owned()));
        }
        parts
    }

    /// Returns the paths in conflict, and the other uncommitted paths of this repository's own files.
    fn uncommitted(&self) -> (Vec<String>, Vec<String>) {
        let bare = bare_repositories(self.examined.worktree, &self.status.entries);
        let is_copy = |path: &Path| self.examined.copies.iter().any(|copy| Path::new(&copy.path) == path);
        let own = |entry: &&StatusEntry| {
            // Uncommitted files of a submodule are listed with the submodule.
            let only_dirty =
                entry.submodule.is_some_and(|submodule| submodule.dirty && !submodule.moved) && !entry.staged;
            let elsewhere = entry.is_repository() || only_dirty;
            let left_alone = entry.untracked && (is_copy(&entry.path) || is_in(&bare, &entry.path));
            !elsewhere && !left_alone
        };
        let (conflicts, others): (Vec<&StatusEntry>, Vec<&StatusEntry>) =
            self.status.entries.iter().filter(own).partition(|entry| entry.in_conflict);
        let paths = |entries: Vec<&StatusEntry>| entries.into_iter().map(|entry| shown(&entry.path)).collect();
        (paths(conflicts), paths(others))
    }

    fn why_uncommitted(&self, operation: Option<&str>) -> String {
        let state = match (&self.status.head, &self.status.branch, operation) {
            (_, _, Some(operation)) => format!("{} is not finished there", with_article(operation)),
            (None, Some(branch), _) => {
                format!(
                    "HEAD is on {branch}, which has no commit; `git symbolic-ref HEAD refs/heads/{}` first",
                    self.branch
                )
            }
            (None, None, _) => format!(
                "HEAD is on no branch and has no commit; `git symbolic-ref HEAD refs/heads/{}` first",
                self.branch
            ),
            (_, None, _) => format!("HEAD is on no branch there; `git switch {}` first", self.branch),
            (_, Some(branch), _) if branch != self.branch => {
                format!("HEAD is on {branch}, which existed before; `git switch {}` first", self.branch)
            }
            _ => String::new(),
        };
        let reasons: Vec<&str> = [state.as_str(), self.examined.why.unwrap_or_default()]
            .into_iter()
            .filter(|reason| !reason.is_empty())
            .collect();
        if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) }
    }

    /// Lists changes of files that are marked as unchanged in the index.
    pub(super) fn marked(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let worktree = &self.examined.checkout();
        let marked = marked_unchanged(worktree)?;
        if marked.is_empty() {
            return Ok(Vec::new());
        }
        let seen: HashSet<&PathBuf> = self.status.entries.iter().map(|entry| &entry.path).collect();
        let changed = status_despite_marks(worktree)?.entries;
        let changed = changed.iter().filter(|it| marked.contains(&it.path) && !seen.contains(&it.path));
        let changed: Vec<String> = changed.map(|entry| shown(&entry.path)).collect();
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let what = format!("changes of files that git is set to treat as unchanged: {}", names(&changed));
        let how = "`git update-index --no-assume-unchanged --no-skip-worktree` for each of them there, then commit"
            .to_owned();
        Ok(vec![part(what, shown(worktree), how)])
    }
}

fn is_in(folders: &[PathBuf], path: &Path) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

fn with_article(operation: &str) -> String {
    format!("{} {operation}", if operation == "am" { "an" } else { "a" })
}

fn how_to_finish(operation: Option<&str>) -> String {
    match operation {
        Some("merge") => {
            "finish it there: resolve the conflicts, `git add` the files, `git commit`; or `git merge --abort`"
                .to_owned()
        }
        Some("bisect") => "`git bisect reset` there".to_owned(),
        Some(operation) => format!("finish it there: `git {operation} --continue`; or `git {operation} --abort`"),
        None => "resolve them there, `git add` them and `git commit`".to_owned(),
    }
}
