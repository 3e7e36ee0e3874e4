//! Checks from outside: in git, in the answers of the tools, and in the user's files.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::case::{Case, Checkout, Layout, Meanwhile};
use crate::life::{brought_by, may_be_refused};
use crate::support::json_lines::Boss;
use crate::world::{TAKEN_BACK, USERS_MARK, World, git, try_git};

type Answer = Result<Value, String>;

/// A unique text that the worker wrote, and the path of its file.
#[derive(Debug, Clone)]
pub struct Mark {
    pub text: String,
    pub path: String,
}

/// Checks a refused creation: it is allowed only in layouts that git itself does not support, and leaves no branch.
pub fn check_refused_creation(world: &World, case: &Case, why: &str) {
    assert!(case.layout == Layout::SubmoduleWithWorktreeConfig, "creation was refused: {why}");
    assert_eq!(world.branches(), world.first_branches, "a refused creation left a branch");
}

pub fn check_refused_start(world: &World, case: &Case, settled: &Value) {
    assert!(case.layout == Layout::SubmoduleWithWorktreeConfig, "it could not start: {settled:#}");
    assert_eq!(settled["outcome"]["run"]["reason"], "could_not_start", "{settled:#}");
    assert_eq!(world.branches(), world.first_branches, "a refused start left a branch");
}

/// Observations of one worker, for the checks at its end.
pub struct Seen<'a> {
    world: &'a World,
    case: &'a Case,
    marks: Vec<Mark>,
    worker: String,
    /// The record's `not_on_branch` as JSON; empty if there is none.
    not_on_branch: String,
    branch: String,
    removed: bool,
}

impl<'a> Seen<'a> {
    pub fn new(world: &'a World, case: &'a Case, marks: Vec<Mark>, worker: String) -> Self {
        let (not_on_branch, branch) = (String::new(), String::new());
        Self { world, case, marks, worker, not_on_branch, branch, removed: false }
    }

    /// Reads the worker's record, and checks that it names all work that is not on the branch.
    pub fn read_worker(&mut self, boss: &mut Boss) {
        let status = boss.succeed("get_worker_status", json!({ "worker_id": self.worker }));
        let worker = &status["worker"];
        self.branch = worker["branch"].as_str().unwrap_or_default().to_owned();
        let named = &worker["outcome"]["changes"]["not_on_branch"];
        self.not_on_branch = if named.is_null() { String::new() } else { named.to_string() };
        let on_branch = self.texts_in(&[format!("refs/heads/{}", self.branch)]);
        for mark in self.marks.iter().filter(|mark| !on_branch.contains(&mark.text)) {
            assert!(self.is_named(mark), "{mark:?} is not on {} and not named: {worker:#}", self.branch);
        }
        // The next step must not remove a worktree that holds work outside the branch.
        let next_step = worker["next_step"].as_str().unwrap_or_default();
        if !self.not_on_branch.is_empty() {
            assert!(!next_step.contains("remove_worktree"), "{next_step}");
        }
    }

    /// Returns whether the record names the mark: by its path, a folder around it, or a ref or commit that holds it.
    fn is_named(&self, mark: &Mark) -> bool {
        let mut names: Vec<String> = Vec::new();
        let mut path = mark.path.as_str();
        loop {
            names.push(path.to_owned());
            match path.rsplit_once('/') {
                Some((folder, _)) => path = folder,
                None => break,
            }
        }
        names.extend(self.holders_of(mark));
        let said = serde_json::from_str::<Value>(&self.not_on_branch).map(texts).unwrap_or_default();
        names.iter().any(|name| said.iter().any(|text| text.contains(name.as_str())))
    }

    /// Returns the branches, stashes and commits that hold the mark.
    fn holders_of(&self, mark: &Mark) -> Vec<String> {
        let mut names = Vec::new();
        for line in self.world.git(&["for-each-ref", "--format=%(refname) %(objectname)"]).lines() {
            let (name, commit) = line.split_once(' ').expect("two words");
            if self.texts_in(&[name.to_owned()]).contains(&mark.text) {
                names.push(name.trim_start_matches("refs/").trim_start_matches("heads/").to_owned());
                names.push(commit[..7].to_owned());
            }
        }
        // Commits that no ref reaches.
        let loose = self.world.git(&["fsck", "--no-dangling", "--unreachable", "--no-progress"]);
        for line in loose.lines().filter(|line| line.starts_with("unreachable commit")) {
            let commit = line.rsplit(' ').next().expect("a commit");
            if self.texts_in(&[commit.to_owned()]).contains(&mark.text) {
                names.push(commit[..7].to_owned());
            }
        }
        let heads = self.world.git(&["worktree", "list", "--porcelain"]);
        for head in heads.lines().filter_map(|line| line.strip_prefix("HEAD ")) {
            if self.texts_in(&[head.to_owned()]).contains(&mark.text) {
                names.push(head[..7].to_owned());
            }
        }
        names
    }

    /// Returns the texts of the marks that these refs or commits reach.
    fn texts_in(&self, refs: &[String]) -> BTreeSet<String> {
        let mut args = vec!["rev-list", "--objects", "--ignore-missing"];
        args.extend(refs.iter().map(String::as_str));
        let Ok(objects) = try_git(&self.world.checkout, &args) else { return BTreeSet::new() };
        let mut found = BTreeSet::new();
        for object in objects.lines().filter_map(|line| line.split(' ').next()) {
            // The blobs are few, and only marked ones are large.
            if self.world.git(&["cat-file", "-t", object]) == "blob" {
                let text = self.world.git(&["cat-file", "blob", object]);
                found.extend(self.marks.iter().filter(|mark| text.contains(&mark.text)).map(|mark| mark.text.clone()));
            }
        }
        found
    }

    fn texts_in_tree(&self, branch: &str) -> BTreeSet<String> {
        let tree = self.world.git(&["rev-parse", &format!("{branch}^{{tree}}")]);
        self.texts_in(&[tree])
    }

    pub fn check_integration(&mut self, foretold: &Answer, answer: &Answer) {
        self.check_nothing_foreign();
        let Ok(report) = answer else {
            let why = answer.as_ref().expect_err("it was refused");
            let excused = may_be_refused(self.case) || self.is_hard_to_integrate();
            assert!(excused, "integration failed: {why}");
            return;
        };
        let status = report["status"].as_str().expect("a status");
        if let Ok(foretold) = foretold {
            let would = foretold["status"].as_str().unwrap_or_default();
            assert_eq!(would == "would_merge", status == "merged", "foretold {foretold:#}, came {report:#}");
        }
        if !["merged", "already_merged", "already_integrated"].contains(&status) {
            return;
        }
        let not_included = report["not_included"].as_array().map_or(0, Vec::len);
        if not_included == 0 {
            let inside = self.texts_in_tree(&self.world.integration_ref());
            for mark in &self.marks {
                assert!(inside.contains(&mark.text), "{status}, and {mark:?} is not in: {report:#}");
            }
        } else {
            assert_eq!(status, "merged", "with {not_included} not included: {report:#}");
        }
    }

    /// Returns whether an integration may fail: the branch is gone, unrelated or lacks work, or commits are picked.
    fn is_hard_to_integrate(&self) -> bool {
        use crate::case::Ending::*;
        matches!(self.case.ending, BranchDeleted | BranchRenamed | Orphan)
            || self.case.strategy == "cherry_pick"
            || !self.not_on_branch.is_empty()
    }

    /// Checks that the integration branch has only its first files, the worker's files and the user's commits.
    fn check_nothing_foreign(&self) {
        let target = self.world.integration_ref();
        let listed = self.world.git(&["ls-tree", "-r", "-z", &target]);
        let brought = brought_by(self.case);
        for record in listed.split('\0').filter(|record| !record.is_empty()) {
            let (kind, path) = record.split_once('\t').expect("a path");
            let known = self.world.first_files.contains(path) || brought.contains(&path);
            let written = self.marks.iter().any(|mark| mark.path == path);
            assert!(known || written, "{path} came into {target}, but was not written for it");
            let is_link = kind.starts_with("160000");
            assert!(!is_link || self.world.first_files.contains(path), "{path} is a dangling link in {target}");
        }
        if self.case.meanwhile == Meanwhile::TakesBack {
            let back = try_git(&self.world.checkout, &["cat-file", "-e", &format!("{target}:{TAKEN_BACK}")]);
            assert!(back.is_err(), "what the user took back came back");
        }
        let users = try_git(&self.world.checkout, &["grep", "-l", USERS_MARK, &target]);
        assert!(users.is_err(), "the user's uncommitted files were committed: {users:?}");
    }

    pub fn check_removal(&mut self, how: &str, answer: &Answer) {
        let removed = answer.as_ref().is_ok_and(|report| !report["removed"].as_array().expect("a list").is_empty());
        self.removed |= removed;
        if self.removed {
            self.check_kept(how, answer);
        }
    }

    /// Checks that, without the worktree, each text of the worker is on a ref or was named as an ignored file.
    fn check_kept(&self, how: &str, answer: &Answer) {
        let listed = self.world.git(&["for-each-ref", "--format=%(refname)"]);
        let refs: Vec<String> = listed.lines().map(str::to_owned).collect();
        let kept = self.texts_in(&refs);
        for mark in self.marks.iter().filter(|mark| !kept.contains(&mark.text)) {
            let ignored = mark.path.ends_with(".ignored") && self.is_named(mark);
            assert!(ignored, "removed {how}, and {mark:?} is nowhere: {answer:#?}");
        }
    }

    pub fn check_end(&self) {
        self.check_nothing_foreign();
        self.check_users_files();
        let listed = self.world.git(&["for-each-ref", "--format=%(refname)"]);
        let refs: Vec<String> = listed.lines().map(str::to_owned).collect();
        let kept = self.texts_in(&refs);
        for mark in self.marks.iter().filter(|mark| !kept.contains(&mark.text)) {
            assert!(self.is_named(mark), "{mark:?} is nowhere, and nothing says so: {}", self.not_on_branch);
        }
    }

    /// Checks that the user's files in the checkout are unchanged.
    fn check_users_files(&self) {
        let name = match self.case.checkout {
            Checkout::Clean => return,
            Checkout::EditedElsewhere | Checkout::StagedElsewhere => "other.txt",
            Checkout::Untracked => "notes.txt",
            Checkout::EditedSame => "shared.txt",
            Checkout::UntrackedSame => "w0-plain.txt",
            Checkout::UnfinishedMerge => {
                let merge = git(&self.world.checkout, &["rev-parse", "-q", "--verify", "MERGE_HEAD"]);
                assert!(!merge.is_empty(), "the user's merge is gone");
                return;
            }
        };
        let text = fs::read_to_string(self.world.checkout.join(name)).unwrap_or_default();
        assert!(text.contains(USERS_MARK), "{name} of the user is now {text:?}");
        // `git reset --keep` itself unstages changes.
        if self.case.checkout == Checkout::StagedElsewhere && self.case.meanwhile != Meanwhile::TakesBack {
            let staged = git(&self.world.checkout, &["diff", "--cached", "--name-only"]);
            assert!(staged.contains(name), "{name} is not staged any more: {staged}");
        }
    }
}

/// Returns every string in a value.
fn texts(value: Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.into_iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.into_iter().flat_map(|(_, value)| texts(value)).collect(),
        _ => Vec::new(),
    }
}
