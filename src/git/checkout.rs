//! Queries about one checkout: its commit, its branch, its git directory, and the commits that names refer to there.
//!
//! libgit2 and git's own files give the answer where it is certain; otherwise the git program does. Nothing is changed
//! here.

use std::fs;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::refs::{self, RefLookup};
use super::trust::Checkout;

/// Returns the branch that is checked out in `dir`, `None` if HEAD is detached.
pub(super) fn current_branch(dir: &Checkout) -> Result<Option<String>, CommandError> {
    let symbolic = Git::read(dir).args(["symbolic-ref", "--quiet", "HEAD"]);
    Ok(symbolic.answer()?.and_then(|name| {
        let name = String::from_utf8_lossy(&name);
        let branch = name.trim_end().strip_prefix("refs/heads/");
        branch.map(str::to_owned)
    }))
}

/// Returns the branch that is checked out in a working tree, `None` if HEAD is detached. It may have no commit yet.
pub fn checked_out(tree: &Checkout) -> Result<Option<String>, CommandError> {
    refs::checked_out(tree.place()).map_or_else(|| current_branch(tree), |branch| Ok(Some(branch)))
}

/// Returns the branch that is checked out in a working tree, as far as that is known without starting git.
pub fn checked_out_at_a_glance(tree: &Path) -> Option<String> {
    refs::checked_out(tree)
}

/// Returns the checked out commit; `None` before the first one.
pub fn head(worktree: &Checkout) -> Result<Option<String>, CommandError> {
    resolve_commit(worktree, "HEAD")
}

/// Returns the commit id of any name that git understands; `None` for an unknown one. A name is never parsed as an
/// option.
pub(super) fn resolve_commit(dir: &Checkout, name: &str) -> Result<Option<String>, CommandError> {
    if name.is_empty() || name.starts_with('-') || name.contains('\0') {
        return Ok(None);
    }
    match refs::commit(dir.place(), name) {
        RefLookup::Found(commit) => Ok(Some(commit)),
        RefLookup::Absent => Ok(None),
        RefLookup::AskGit => ask_commit(dir, name),
    }
}

/// Does the same by the git program. The caller has checked the name.
pub(super) fn ask_commit(dir: &Checkout, name: &str) -> Result<Option<String>, CommandError> {
    let output = Git::read(dir)
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
        .arg(format!("{name}^{{commit}}"))
        .output()?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // Some errors (an ambiguous or malformed name) leave other text behind.
    let is_id = id.len() >= 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok((output.code == Some(0) && is_id).then_some(id))
}

/// Returns the commit at the tip of a local branch, never of a tag or a remote branch of the same name.
pub(super) fn branch_commit(dir: &Checkout, branch: &str) -> Result<Option<String>, CommandError> {
    ref_commit(dir, &format!("refs/heads/{branch}"))
}

/// Returns the commit of a ref by its full name. A revision such as `refs/heads/main~1` is none.
pub(super) fn ref_commit(dir: &Checkout, full_name: &str) -> Result<Option<String>, CommandError> {
    if git2::Reference::is_valid_name(full_name) { resolve_commit(dir, full_name) } else { Ok(None) }
}

/// Returns the git directory of a worktree, which holds its own HEAD and index.
pub fn git_dir(worktree: &Checkout) -> Result<PathBuf, CommandError> {
    // Read directly in the usual cases: a start of git takes longer than everything that callers do with the result.
    let own = worktree.named_git_dir().map(Path::to_owned).or_else(|| own_git_dir(worktree));
    own.map_or_else(|| Git::read(worktree).args(["rev-parse", "--absolute-git-dir"]).path(), Ok)
}

/// Returns whether a folder is the root of a working tree whose `.git` leads to a git directory. Git is not started.
pub fn is_working_tree(folder: &Path) -> bool {
    own_git_dir(folder).is_some()
}

/// Returns the git directory that `.git` in this folder is or names.
fn own_git_dir(folder: &Path) -> Option<PathBuf> {
    let dot_git = folder.join(".git");
    if dot_git.join("HEAD").is_file() {
        return Some(dot_git);
    }
    let text = fs::read_to_string(&dot_git).ok()?;
    let path = text.strip_prefix("gitdir: ")?.trim_end_matches('\n');
    folder.join(path).canonicalize().ok().filter(|git_dir| git_dir.join("HEAD").is_file())
}
