use super::*;
use crate::git::integrate::{IntegrationStep, ScratchMerge, Stacked, Strategy, tip};
use crate::git::land::{BranchMove, land};
use crate::git::testing::{Fixture, git, show};

const ALL: [Strategy; 3] = [Strategy::Merge, Strategy::Squash, Strategy::CherryPick];

/// A start time before all reflog entries of the test.
const BEFORE: i64 = 0;
/// A start time after them.
const LATER: i64 = i64::MAX;

/// A worker on branch `work`, which begins at the tip of `main`.
struct WorkerFixture {
    fixture: Fixture,
    known: WorkerHistory,
}

impl WorkerFixture {
    fn new(fixture: Fixture) -> Self {
        let base = fixture.git(&["rev-parse", "main"]);
        fixture.git(&["branch", "work"]);
        let known = WorkerHistory {
            base: Some(base),
            from_target: true,
            began: BEFORE,
            branches: vec!["work".to_owned()],
            assigned: None,
            earlier_integrations: vec![],
        };
        Self { fixture, known }
    }

    /// Creates three commits on `main` and a worker that begins at the last one.
    fn after_commits() -> Self {
        let fixture = Fixture::new();
        for name in ["a.txt", "b.txt", "c.txt"] {
            fixture.commit(name, "1\n");
        }
        Self::new(fixture)
    }

    fn on(&self, branch: &str, work: impl Fn(&Fixture)) {
        self.fixture.git(&["checkout", "-q", branch]);
        work(&self.fixture);
        self.fixture.git(&["checkout", "-q", "main"]);
    }

    fn commits(&self, path: &str, text: &str) {
        self.on("work", |fixture| drop(fixture.commit(path, text)));
    }

    fn origins(&self, into: &str) -> CommitOrigins {
        let (onto, tip) = (tip(&self.fixture.repo, into).unwrap(), tip(&self.fixture.repo, "work").unwrap());
        commit_origins(&self.fixture.repo, into, &onto, &tip, &self.known).unwrap()
    }

    fn stack(&self, into: &str, strategy: Strategy) -> (String, Stacked, Option<String>) {
        let onto = tip(&self.fixture.repo, into).unwrap();
        let origins = self.origins(into);
        let step = IntegrationStep {
            source: "work".to_owned(),
            tip: tip(&self.fixture.repo, "work").unwrap(),
            strategy,
            message: "integrate".to_owned(),
            is_last: true,
            contained: origins.contained,
            withdrawn: origins.withdrawn,
        };
        let (dry, _) = ScratchMerge::dry(&self.fixture.repo).unwrap().stack(&onto, &step).unwrap();
        let (stacked, by_hand) = ScratchMerge::new(&self.fixture.repo).stack(&onto, &step).unwrap();
        let is_clean = |it: &Stacked| matches!(it, Stacked::Clean(_));
        assert_eq!(is_clean(&dry), is_clean(&stacked), "{dry:?} {stacked:?}");
        (onto, stacked, by_hand)
    }

    /// Integrates the worker and records it as the orchestrator does.
    fn integrate(&mut self, into: &str, strategy: Strategy) -> String {
        let (from, stacked, _) = self.stack(into, strategy);
        let Stacked::Clean(to) = stacked else { panic!("{strategy:?} into {into}: {stacked:?}") };
        land(&self.fixture.repo, BranchMove { branch: into, from: &from, to: &to, what: "work" }).unwrap();
        if into == "main" {
            let source = tip(&self.fixture.repo, "work").unwrap();
            self.known.earlier_integrations.push(EarlierIntegration {
                source,
                commit: to.clone(),
                partial: false,
                own: true,
            });
        }
        to
    }

    fn main_holds(&self, path: &str) -> bool {
        !self.fixture.git(&["ls-tree", "-r", "--name-only", "main", path]).is_empty()
    }

    fn main_text(&self, path: &str) -> String {
        show(self.fixture.root(), "main", path)
    }
}

type Withdraw = fn(&Fixture);

/// Returns ways in which a user removes `b.txt` and later commits while the worker runs.
fn withdrawals() -> Vec<(&'static str, Withdraw, usize)> {
    vec![
        ("reset", |f| drop(f.git(&["reset", "-q", "--hard", "HEAD~2"])), 2),
        (
            "reset and further commits",
            |f| {
                f.git(&["reset", "-q", "--hard", "HEAD~2"]);
                f.commit("new.txt", "x\n");
            },
            2,
        ),
        ("rebase that drops one", |f| drop(f.git(&["rebase", "-q", "--onto", "HEAD~2", "HEAD~1"])), 2),
        (
            "amend",
            |f| {
                f.git(&["rm", "-q", "b.txt"]);
                f.git(&["commit", "-q", "--amend", "-m", "c alone"]);
            },
            1,
        ),
        (
            "another history",
            |f| {
                f.git(&["checkout", "-q", "--orphan", "fresh"]);
                f.git(&["rm", "-qf", "b.txt"]);
                f.git(&["commit", "-qm", "squashed history"]);
                f.git(&["branch", "-f", "main", "fresh"]);
                f.git(&["checkout", "-q", "main"]);
            },
            4,
        ),
        (
            "moved by a ref alone",
            |f| {
                f.git(&["checkout", "-q", "--detach"]);
                f.git(&["update-ref", "refs/heads/main", "HEAD~2"]);
                f.git(&["checkout", "-q", "main"]);
            },
            2,
        ),
    ]
}

#[test]
fn withdrawn_commits_stay_out() {
    for (name, withdraw, dropped) in withdrawals() {
        for strategy in ALL {
            let mut worker = WorkerFixture::after_commits();
            worker.commits("work.txt", "work\n");
            withdraw(&worker.fixture);
            assert!(!worker.main_holds("b.txt"), "{name}");
            assert_eq!(worker.origins("main").dropped.len(), dropped, "{name}");
            let before = worker.fixture.git(&["rev-list", "main"]);
            let commit = worker.integrate("main", strategy);
            assert!(worker.main_holds("work.txt") && !worker.main_holds("b.txt"), "{name} {strategy:?}");
            let after = worker.fixture.git(&["rev-list", "main"]);
            assert_eq!(
                after.lines().filter(|it| !before.contains(it)).collect::<Vec<_>>(),
                [commit],
                "{name} {strategy:?}"
            );
        }
    }
}

#[test]
fn withdrawn_commits_stay_out_the_second_time() {
    let mut worker = WorkerFixture::after_commits();
    worker.commits("work.txt", "one\n");
    worker.fixture.git(&["reset", "-q", "--hard", "HEAD~2"]);
    worker.integrate("main", Strategy::Merge);
    worker.commits("work.txt", "two\n");
    worker.integrate("main", Strategy::Merge);
    assert_eq!((worker.main_text("work.txt").as_str(), worker.main_holds("b.txt")), ("two\n", false));
    assert_eq!(worker.stack("main", Strategy::Merge).1, Stacked::Nothing);
}

#[test]
fn merged_and_then_withdrawn_commits_stay_out() {
    let with_merge: [fn(&Fixture); 3] = [
        |f| drop(f.git(&["merge", "-q", "--no-edit", "main"])),
        |f| drop(f.git(&["merge", "-q", "--no-edit", "--no-ff", "main"])),
        |f| drop(f.git(&["rebase", "-q", "main"])),
    ];
    for merge in with_merge {
        for own_before in [true, false] {
            let mut worker = WorkerFixture::after_commits();
            if own_before {
                worker.commits("work.txt", "work\n");
            }
            worker.fixture.commit("regretted.txt", "x\n");
            worker.on("work", merge);
            worker.commits("more.txt", "more\n");
            worker.fixture.git(&["reset", "-q", "--hard", "HEAD~1"]);
            worker.integrate("main", Strategy::Merge);
            assert!(worker.main_holds("more.txt") && !worker.main_holds("regretted.txt"));
            assert_eq!(worker.main_holds("work.txt"), own_before);
        }
    }
}

#[test]
fn commits_withdrawn_before_the_start_are_integrated() {
    for strategy in ALL {
        let mut worker = WorkerFixture::after_commits();
        worker.fixture.git(&["reset", "-q", "--hard", "HEAD~2"]);
        (worker.known.from_target, worker.known.began) = (false, LATER);
        worker.commits("work.txt", "work\n");
        let found = worker.origins("main");
        assert_eq!((found.dropped.len(), found.inherited.len()), (0, 2));
        worker.integrate("main", strategy);
        assert!(worker.main_holds("work.txt") && worker.main_holds("b.txt"), "{strategy:?}");
    }
}

#[test]
fn reverted_commit_stays_reverted() {
    for strategy in ALL {
        let mut worker = WorkerFixture::after_commits();
        worker.commits("work.txt", "work\n");
        worker.fixture.git(&["revert", "--no-edit", "HEAD~1"]);
        assert_eq!(worker.origins("main"), CommitOrigins::default());
        worker.integrate("main", strategy);
        assert!(worker.main_holds("work.txt") && !worker.main_holds("b.txt"));
    }
}

#[test]
fn withdrawn_integration_can_be_repeated() {
    let undone: [fn(&Fixture); 2] = [
        |f| drop(f.git(&["reset", "-q", "--hard", "main@{1}"])),
        |f| {
            // The user fast-forwards by hand and resets again.
            f.git(&["reset", "-q", "--hard", "main@{1}"]);
            f.git(&["merge", "-q", "--ff-only", "work"]);
            f.git(&["reset", "-q", "--hard", "main@{1}"]);
        },
    ];
    for undo in undone {
        for strategy in ALL {
            let mut worker = WorkerFixture::after_commits();
            worker.commits("work.txt", "work\n");
            worker.integrate("main", strategy);
            undo(&worker.fixture);
            assert!(!worker.main_holds("work.txt"));
            assert_eq!(worker.origins("main"), CommitOrigins::default());
            worker.integrate("main", strategy);
            assert!(worker.main_holds("work.txt"));
        }
    }
}

#[test]
fn any_strategy_integrates_again_after_any_other() {
    for first in ALL {
        for second in ALL {
            for between in [false, true] {
                let mut worker = WorkerFixture::after_commits();
                worker.commits("a.txt", "one\n");
                worker.integrate("main", first);
                if between {
                    worker.fixture.commit("a.txt", "one\nuser\n");
                }
                worker.commits("b.txt", "two\n");
                if !between {
                    worker.commits("a.txt", "two\n");
                }
                worker.integrate("main", second);
                let a = if between { "one\nuser\n" } else { "two\n" };
                assert_eq!((worker.main_text("a.txt").as_str(), worker.main_text("b.txt").as_str()), (a, "two\n"));
                assert_eq!(worker.stack("main", second).1, Stacked::Nothing, "{first:?} {second:?}");
            }
        }
    }
}

#[test]
fn later_work_merges_after_integration_by_hand() {
    let by_hand: [fn(&Fixture); 4] = [
        |f| {
            f.git(&["merge", "-q", "--squash", "work"]);
            f.git(&["commit", "-qm", "by hand"]);
        },
        |f| drop(f.git(&["cherry-pick", "main..work"])),
        |f| drop(f.git(&["merge", "-q", "--no-edit", "--no-ff", "work"])),
        |f| drop(f.git(&["merge", "-q", "--ff-only", "work"])),
    ];
    for land in by_hand {
        for strategy in ALL {
            let mut worker = WorkerFixture::after_commits();
            worker.commits("a.txt", "one\n");
            worker.commits("a.txt", "one and a half\n");
            land(&worker.fixture);
            worker.commits("a.txt", "two\n");
            worker.integrate("main", strategy);
            assert_eq!(worker.main_text("a.txt"), "two\n");
        }
    }
}

#[test]
fn reverted_picks_stay_out_and_are_named() {
    for strategy in ALL {
        let mut worker = WorkerFixture::after_commits();
        worker.commits("a.txt", "one\n");
        let picked = worker.fixture.git(&["rev-parse", "work"]);
        worker.fixture.commit("main.txt", "1\n");
        worker.fixture.git(&["cherry-pick", "work"]);
        worker.fixture.git(&["revert", "--no-edit", "HEAD"]);
        worker.fixture.commit("a.txt", "user\n");
        worker.commits("b.txt", "two\n");
        assert_eq!(worker.stack("main", strategy).2, Some(picked), "{strategy:?}");
        worker.integrate("main", strategy);
        assert_eq!((worker.main_text("a.txt").as_str(), worker.main_text("b.txt").as_str()), ("user\n", "two\n"));
    }
}

#[test]
fn commits_beyond_the_limit_are_not_left_out() {
    let worker = WorkerFixture::after_commits();
    worker.commits("a.txt", "one\n");
    worker.on("work", |fixture| {
        for number in 0..100 {
            fixture.commit("b.txt", &format!("{number}\n"));
        }
    });
    worker.fixture.commit("a.txt", "user\n");
    worker.fixture.git(&["cherry-pick", "work~100..work"]);
    let (_, stacked, by_hand) = worker.stack("main", Strategy::Merge);
    assert!(matches!(stacked, Stacked::Conflicts(_)) && by_hand.is_none(), "{stacked:?}");
}

#[test]
fn amended_squashed_commit_brings_its_difference() {
    let mut worker = WorkerFixture::after_commits();
    worker.commits("a.txt", "one\n");
    worker.integrate("main", Strategy::Squash);
    worker.on("work", |fixture| {
        fixture.write("a.txt", "amended\n");
        fixture.git(&["commit", "-qa", "--amend", "-m", "amended"]);
    });
    worker.integrate("main", Strategy::Squash);
    assert_eq!(worker.main_text("a.txt"), "amended\n");
}

#[test]
fn branch_with_its_own_squash_merges_normally() {
    let mut worker = WorkerFixture::after_commits();
    worker.commits("a.txt", "one\n");
    worker.integrate("main", Strategy::Squash);
    worker.fixture.commit("a.txt", "one\nuser\n");
    worker.on("work", |fixture| {
        fixture.git(&["merge", "-q", "--no-edit", "-X", "theirs", "main"]);
        fixture.commit("a.txt", "one\nuser\ntwo\n");
    });
    worker.integrate("main", Strategy::Squash);
    assert_eq!(worker.main_text("a.txt"), "one\nuser\ntwo\n");
}

#[test]
fn integrations_into_two_targets_are_independent() {
    let mut worker = WorkerFixture::after_commits();
    worker.fixture.git(&["branch", "release", "main"]);
    worker.commits("a.txt", "one\n");
    worker.integrate("main", Strategy::Squash);
    worker.integrate("release", Strategy::Squash);
    worker.commits("a.txt", "two\n");
    worker.integrate("main", Strategy::Squash);
    assert_eq!(worker.main_text("a.txt"), "two\n");
    assert_eq!(show(worker.fixture.root(), "release", "a.txt"), "one\n");
}

#[test]
fn dependencies_are_integrated_unless_already_contained() {
    let fixture = Fixture::new();
    fixture.commit("a.txt", "1\n");
    fixture.git(&["checkout", "-q", "-b", "below"]);
    let below = fixture.commit("a.txt", "below\n");
    fixture.git(&["checkout", "-q", "main"]);
    let mut worker = WorkerFixture::new(fixture);
    worker.fixture.git(&["branch", "-f", "work", "below"]);
    worker.known.base = Some(below.clone());
    worker.known.from_target = false;
    worker.known.branches.push("below".to_owned());
    worker.commits("a.txt", "below\nabove\n");
    worker.known.branches.pop();
    assert_eq!(worker.origins("main").inherited, std::slice::from_ref(&below));
    // A branch that was squashed separately is not integrated a second time.
    worker.fixture.git(&["merge", "-q", "--squash", "below"]);
    worker.fixture.git(&["commit", "-qm", "below, squashed"]);
    let squashed = worker.fixture.git(&["rev-parse", "main"]);
    worker.known.earlier_integrations.push(EarlierIntegration {
        source: below.clone(),
        commit: squashed,
        partial: false,
        own: false,
    });
    let found = worker.origins("main");
    assert_eq!((found.contained, found.inherited), (vec![below], vec![]));
    worker.integrate("main", Strategy::Squash);
    assert_eq!(worker.main_text("a.txt"), "below\nabove\n");
}

#[test]
fn commits_from_other_branches_are_named() {
    let others = |worker: &WorkerFixture| worker.origins("main").others;
    let of = |branch: &str, number| vec![(branch.to_owned(), number)];
    let with_rival = || {
        let worker = WorkerFixture::new(Fixture::new());
        worker.fixture.git(&["branch", "rival"]);
        worker.on("rival", |fixture| ["r1", "r2", "r3"].iter().for_each(|name| drop(fixture.commit(name, "x\n"))));
        worker
    };
    let cases: [(&[&str], usize); 4] = [
        (&["merge", "-q", "--no-edit", "rival"], 3),
        (&["reset", "-q", "--hard", "rival"], 3),
        (&["rebase", "-q", "rival"], 3),
        (&["cherry-pick", "rival", "rival~1", "rival~2"], 0),
    ];
    for (command, number) in cases {
        let worker = with_rival();
        worker.commits("own.txt", "1\n");
        worker.on("work", |fixture| drop(fixture.git(command)));
        worker.commits("own.txt", "2\n");
        // The branch may have moved on since.
        worker.on("rival", |fixture| drop(fixture.commit("r4", "x\n")));
        let expected = if number > 0 { of("rival", number) } else { vec![] };
        assert_eq!(others(&worker), expected, "{command:?}");
    }
    let mut worker = with_rival();
    for name in ["own1.txt", "own2.txt", "own3.txt"] {
        worker.commits(name, "1\n");
    }
    worker.on("main", |fixture| drop(fixture.commit("main.txt", "1\n")));
    worker.on("work", |fixture| drop(fixture.git(&["rebase", "-q", "main"])));
    worker.fixture.git(&["update-ref", "refs/remotes/origin/work", "work"]);
    worker.fixture.git(&["branch", "built-on-it", "work"]);
    assert_eq!(others(&worker), vec![], "a rebase of its own commits");
    worker.fixture.git(&["branch", "renamed", "work"]);
    worker.known.assigned = Some("work".to_owned());
    worker.known.branches = vec!["renamed".to_owned()];
    assert_eq!(others(&worker), vec![], "on a second branch of its own");
}

#[test]
fn base_suffices_without_a_reflog() {
    let mut worker = WorkerFixture::after_commits();
    worker.commits("work.txt", "work\n");
    worker.fixture.git(&["reset", "-q", "--hard", "HEAD~2"]);
    std::fs::remove_dir_all(worker.fixture.repo.common_dir.join("logs")).unwrap();
    worker.integrate("main", Strategy::Merge);
    assert!(worker.main_holds("work.txt") && !worker.main_holds("b.txt"));
}

#[test]
fn git_gives_the_same_answers_as_libgit2() {
    for option in ["--object-format=sha256", "--ref-format=reftable"] {
        let fixture = Fixture::empty(&[option]);
        for name in ["a.txt", "b.txt", "c.txt"] {
            fixture.commit(name, "1\n");
        }
        let mut worker = WorkerFixture::new(fixture);
        worker.commits("work.txt", "work\n");
        worker.fixture.git(&["reset", "-q", "--hard", "HEAD~2"]);
        assert_eq!(worker.origins("main").dropped.len(), 2, "{option}");
        worker.integrate("main", Strategy::Merge);
        assert!(worker.main_holds("work.txt") && !worker.main_holds("b.txt"));
        let log = git(worker.fixture.root(), &["log", "-g", "--format=%H", "main"]);
        assert_eq!(reflog::log(&worker.fixture.repo, "main").unwrap().len(), log.lines().count());
    }
}
