use std::path::PathBuf;

use super::super::lifecycle::Ending;
use super::super::spec::ContextSource;
use super::super::testing::{apply, create, create_race, draft, needs, settle, takes};
use super::*;

fn rejection(made: Vec<Result<WorkerId, Rejection>>, at: usize) -> String {
    made[at].as_ref().unwrap_err().to_string()
}

#[test]
fn one_bad_item_fails_alone() {
    let mut registry = Registry::default();
    let made = create(&mut registry, &[draft("a"), needs("b", &["unknown"]), draft("c")]);
    assert_eq!((made[0].is_ok(), made[1].is_ok(), made[2].is_ok()), (true, false, true));
    assert_eq!(made[2].as_ref().unwrap().as_str(), "w-2-c", "a refused item takes no number");
    assert!(rejection(made, 1).contains("\"unknown\""));
}

#[test]
fn dependencies_resolve_in_batch_and_registry() {
    let mut registry = Registry::default();
    create(&mut registry, &[draft("early")]);
    let made = create(&mut registry, &[needs("x", &["y", "w-1"]), draft("y")]);
    let x = registry.get(made[0].as_ref().unwrap()).unwrap();
    assert_eq!(x.mission.depends_on, ["y".into(), "early".into()]);
}

#[test]
fn cycles_are_refused_with_their_path() {
    let mut registry = Registry::default();
    let made =
        create(&mut registry, &[needs("a", &["c"]), needs("b", &["a"]), needs("c", &["b"]), needs("self", &["self"])]);
    assert!(rejection(made.clone(), 0).contains("a → c → b → a"), "{made:?}");
    assert!(rejection(made, 3).contains("self → self"));
}

#[test]
fn cycle_through_an_open_worker_is_found() {
    let mut registry = Registry::default();
    let made = create(&mut registry, &[draft("a"), needs("b", &["a"])]);
    settle(&mut registry, made[0].as_ref().unwrap(), Ending::Failed);
    let again = create(&mut registry, &[needs("a", &["b"])]);
    assert!(rejection(again, 0).contains("a → b → a"));
}

#[test]
fn context_resolves_in_batch_and_registry() {
    let mut registry = Registry::default();
    create(&mut registry, &[draft("early")]);
    let racer = |backend: &str| Draft { backend: backend.into(), task_id: Some("race".into()), ..draft(backend) };
    create_race(&mut registry, &[racer("codex"), racer("gemini")]).into_iter().for_each(|made| drop(made.unwrap()));
    let names = ["late", "early", "w-2", "race", "w-1", "early"];
    let made = create(&mut registry, &[takes("x", &names), draft("late")]);
    let x = registry.get(made[0].as_ref().unwrap()).unwrap();
    let task = |name: &str| ContextSource::Task(name.into());
    let worker = |number: u64, title: &str| ContextSource::Worker(WorkerId::new(number, title));
    let expected = [task("late"), task("early"), worker(2, "codex"), task("race"), worker(1, "early")];
    assert_eq!(x.mission.context_from, expected);
}

#[test]
fn unknown_and_foreign_context_is_refused_by_name() {
    let mut registry = Registry::default();
    let other = BossId::from("other");
    let defaults = Defaults { worktrees: Path::new("/w"), branch_prefix: "o/", integration_branch: None };
    let theirs = register(&registry, &other, &[draft("theirs")], defaults).remove(0).unwrap();
    let Registered::New(theirs) = theirs else { panic!("{theirs:?}") };
    apply(&mut registry, "s", super::super::entry::Entry::Created { workers: vec![*theirs] });
    let made = create(&mut registry, &[takes("a", &["nothing"]), takes("b", &["theirs"]), takes("c", &["a"])]);
    assert!(rejection(made.clone(), 0).contains("cannot take context from \"nothing\""), "{made:?}");
    assert!(rejection(made.clone(), 1).contains("w-1-theirs is a worker of another boss"), "{made:?}");
    assert!(made[2].is_ok(), "as with dependencies, only the mission itself is refused");
}

#[test]
fn cycles_through_both_kinds_are_refused() {
    let mut registry = Registry::default();
    let made = create(&mut registry, &[takes("a", &["c"]), needs("b", &["a"]), takes("c", &["b"]), takes("d", &["d"])]);
    assert!(rejection(made.clone(), 0).contains("a → c → b → a"), "{made:?}");
    assert!(rejection(made, 3).contains("d → d"));
    let made = create(&mut registry, &[draft("old"), takes("new", &["old"])]);
    settle(&mut registry, made[0].as_ref().unwrap(), Ending::Failed);
    let again = create(&mut registry, &[takes("old", &["new"])]);
    assert!(rejection(again, 0).contains("old → new → old"));
    let name = made[0].as_ref().unwrap().to_string();
    let again = create(&mut registry, &[takes("old", &[&name])]);
    assert!(again[0].is_ok(), "the report of an earlier worker of its own task: {again:?}");
}

#[test]
fn settled_worker_frees_its_task_id() {
    let mut registry = Registry::default();
    let first = create(&mut registry, &[draft("t"), draft("t")]);
    assert!(rejection(first.clone(), 1).contains("more than once"));
    assert!(rejection(create(&mut registry, &[draft("t")]), 0).contains("w-1-t"));
    settle(&mut registry, first[0].as_ref().unwrap(), Ending::Completed);
    assert!(create(&mut registry, &[draft("t")])[0].is_ok());
}

#[test]
fn one_directory_has_one_live_writer() {
    let mut registry = Registry::default();
    let place = || DraftPlace::Directory(PathBuf::from("/src"));
    let writer = |title| Draft { place: place(), ..draft(title) };
    let reader = Draft { place: place(), permissions: Permissions::ReadOnly, ..draft("reader") };
    let made = create(&mut registry, &[writer("first"), writer("second"), reader]);
    assert!(rejection(made.clone(), 1).contains("cannot work in /src: worker w-1-first already works there"));
    assert!(made[2].is_ok(), "readers do no harm");
}

#[test]
fn one_branch_has_one_worker() {
    let mut registry = Registry::default();
    let on = |title| Draft {
        place: DraftPlace::Worktree { branch: Some("feature/x".to_owned()), base: None, path: None, directory: None },
        ..draft(title)
    };
    assert!(rejection(create(&mut registry, &[on("a"), on("b")]), 1).contains("feature/x"));
}

/// Under the journal's lock, so all servers wait for it.
#[test]
fn batch_of_many_waves_registers_fast() {
    let name = |wave: usize, at: usize| format!("t{wave}-{at}");
    let mut drafts = Vec::new();
    for wave in 0..10 {
        let before: Vec<String> = (0..100).filter(|_| wave > 0).map(|at| name(wave - 1, at)).collect();
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        drafts.extend((0..100).map(|at| needs(&name(wave, at), &before)));
    }
    let began = std::time::Instant::now();
    let made = create(&mut Registry::default(), &drafts);
    assert!(made.iter().all(Result::is_ok));
    assert!(began.elapsed().as_secs() < 10, "it took {:?}", began.elapsed());
}
