use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60;

/// The wakes of the thread `t`, with a clock that the test moves.
#[derive(Default)]
struct World {
    wakes: Wakes,
    seq: u64,
    now: Timestamp,
    gone: Vec<&'static str>,
}

impl World {
    fn by(&mut self, server: &str, entry: Entry) {
        self.seq += 1;
        self.wakes.apply(&Line { seq: self.seq, at: self.now, server: server.into(), entry });
    }

    fn request(&mut self, server: &str) {
        self.by(
            server,
            Entry::WakeRequested { boss: "b".into(), thread: thread(), workers: Vec::new(), turn: "turn-1".into() },
        );
    }

    fn ran(&mut self, server: &str, failure: Option<&str>) {
        self.by(server, Entry::WakeSent { thread: thread() });
        self.by(server, Entry::WakeRan { thread: thread(), failure: failure.map(str::to_owned) });
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn may_send(&self, server: &str) -> bool {
        self.wakes.may_send(&thread(), self.now, &server.into(), |it| !self.gone.contains(&it.as_str()))
    }
}

fn thread() -> ThreadId {
    "t".into()
}

#[test]
fn request_gets_one_accepted_pointer() {
    let mut world = World::default();
    assert!(!world.may_send("s"));
    world.request("s");
    assert!(world.may_send("s"));
    world.by("s", Entry::WakeSent { thread: thread() });
    assert!(!world.may_send("s"), "the command runs");
    world.by("s", Entry::WakeRan { thread: thread(), failure: None });
    world.pass(24 * 60 * MINUTE);
    assert!(!world.may_send("s"), "the client holds it");
    world.by("s", Entry::WakeArrived { thread: thread() });
    assert!(world.wakes.is_empty());
    world.request("s");
    assert!(world.may_send("s"));
}

#[test]
fn earlier_pointer_holds_back_the_next_for_a_while() {
    let mut world = World::default();
    world.request("s");
    world.ran("s", None);
    world.by("s", Entry::WakeEnded { thread: thread() });
    assert!(world.wakes.has_arrived(&thread(), "turn-2"), "the client still holds the pointer");
    world.request("s");
    assert!(!world.may_send("s"));
    world.pass(10 * MINUTE);
    assert!(world.may_send("s"), "the earlier one seems to be lost");

    world.by("s", Entry::WakeArrived { thread: thread() });
    assert!(world.may_send("s"), "the earlier pointer was not for this request");
    world.ran("s", None);
    world.by("s", Entry::WakeArrived { thread: thread() });
    assert!(world.wakes.is_empty());
}

#[test]
fn failed_run_is_repeated_a_few_times() {
    let mut world = World::default();
    world.request("s");
    for pause in [5, 30] {
        world.ran("s", Some("broken"));
        world.pass(pause - 1);
        assert!(!world.may_send("s"));
        world.pass(1);
        assert!(world.may_send("s"));
    }
    world.ran("s", Some(&"x".repeat(10_000)));
    world.pass(24 * 60 * MINUTE);
    assert!(!world.may_send("s"));
    assert_eq!(world.wakes.failure.as_ref().map(|failure| failure.reason.len()), Some(FAILURE));
    world.request("s");
    assert!(world.may_send("s"), "a new request begins anew");
}

#[test]
fn clock_that_was_set_back_delays_nothing() {
    let mut world = World { now: Timestamp::from_second(1_000_000).unwrap(), ..World::default() };
    world.request("s");
    world.ran("s", Some("broken"));
    world.now = Timestamp::from_second(500_000).unwrap();
    assert!(world.may_send("s"));
}

#[test]
fn one_server_sends() {
    let mut world = World::default();
    world.request("s");
    assert!(!world.may_send("other"), "its server lives");
    world.gone.push("s");
    assert!(world.may_send("other") && world.may_send("third"));
    // The first entry decides.
    world.by("other", Entry::WakeSent { thread: thread() });
    assert!(!world.may_send("other") && !world.may_send("third"));
    world.gone.push("other");
    assert!(!world.may_send("third"), "a pause first");
    world.pass(5);
    assert!(world.may_send("third"), "the run has no result, and its server is dead");
}

#[test]
fn arrival_before_the_end_of_the_command_counts() {
    let mut world = World::default();
    world.request("s");
    world.by("s", Entry::WakeSent { thread: thread() });
    world.by("s", Entry::WakeArrived { thread: thread() });
    world.by("s", Entry::WakeRan { thread: thread(), failure: None });
    assert!(world.wakes.is_empty());
}

#[test]
fn arrival_without_a_pointer_keeps_the_request() {
    let mut world = World::default();
    world.request("s");
    // Such a turn began with a message of the user's own.
    world.by("s", Entry::WakeArrived { thread: thread() });
    assert!(world.may_send("s"));
    world.by("s", Entry::WakeEnded { thread: thread() });
    assert!(world.wakes.is_empty());
}

#[test]
fn turn_of_the_request_is_no_arrival() {
    let mut world = World::default();
    world.request("s");
    assert!(!world.wakes.has_arrived(&thread(), "turn-2"), "nothing was sent");
    world.ran("s", None);
    assert!(!world.wakes.has_arrived(&thread(), "turn-1"));
    assert!(world.wakes.has_arrived(&thread(), "turn-2"));
}

#[test]
fn only_a_later_delivery_overtakes_the_request() {
    let mut world = World { seq: 6, ..World::default() };
    world.request("s");
    assert!(!world.wakes.is_overtaken(&thread(), 6), "the request came after it");
    assert!(world.wakes.is_overtaken(&thread(), 8));
    assert!(!world.wakes.is_overtaken(&"other".into(), 8));
}

#[test]
fn old_threads_are_forgotten() {
    let mut world = World::default();
    world.request("s");
    world.pass(8 * 24 * 60 * MINUTE);
    let other = ThreadId::from("other");
    world.by(
        "s",
        Entry::WakeRequested { boss: "b".into(), thread: other.clone(), workers: Vec::new(), turn: "turn-1".into() },
    );
    assert_eq!(world.wakes.requested().map(|(thread, _)| thread).collect::<Vec<_>>(), [&other]);
}

#[test]
fn pointer_counts_and_names_nothing() {
    let cases = [
        ((1, 0, 0, 0), "1 worker settled"),
        ((2, 1, 0, 0), "2 workers settled, 1 task is blocked"),
        ((0, 3, 1, 2), "3 tasks are blocked, 1 worker has stalled, 2 workers ask"),
        ((0, 0, 0, 0), "nothing runs or can start"),
    ];
    for ((settled, blocked, stalled, asking), counts) in cases {
        let pointer = DueCounts { settled, blocked, stalled, asking }.pointer();
        assert_eq!(pointer, format!("orchestrator-boss: {counts}; call wait_for_any_worker"));
    }
}

/// A step of several servers, of the client and of time.
#[derive(Debug, Clone)]
enum Step {
    Request,
    /// A server tries to send. The command succeeds, fails, or its server dies before the result is recorded.
    Send(usize, Run),
    Arrive,
    End,
    Pass(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Run {
    Accepted,
    Failed,
    Killed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = prop_oneof![3 => Just(Run::Accepted), 2 => Just(Run::Failed), 1 => Just(Run::Killed)];
    let step = prop_oneof![
        2 => Just(Step::Request),
        6 => (0..SERVERS.len() - 1, run).prop_map(|(server, run)| Step::Send(server, run)),
        2 => Just(Step::Arrive),
        1 => Just(Step::End),
        3 => (0..700_u64).prop_map(Step::Pass),
    ];
    vec(step, 0..40)
}

/// The last one is never killed.
const SERVERS: [&str; 4] = ["s-1", "s-2", "s-3", "s-4"];

proptest! {
    #[test]
    fn pointers_stay_few_and_no_request_is_lost(steps in steps()) {
        let mut world = World::default();
        let (mut runs, mut accepted) = (0, 0);
        let mut last_accepted: Option<Timestamp> = None;
        let mut is_open = false;
        for step in steps {
            match step {
                Step::Request => {
                    let living = SERVERS.into_iter().find(|server| !world.gone.contains(server)).unwrap();
                    world.request(living);
                    (runs, accepted, is_open) = (0, 0, true);
                }
                Step::Send(server, run) => {
                    let server = SERVERS[server];
                    if world.gone.contains(&server) || !world.may_send(server) {
                        continue;
                    }
                    prop_assert!(is_open);
                    world.by(server, Entry::WakeSent { thread: thread() });
                    runs += 1;
                    match run {
                        Run::Killed => world.gone.push(server),
                        Run::Failed => world.by(server, Entry::WakeRan { thread: thread(), failure: Some("no".into()) }),
                        Run::Accepted => {
                            world.by(server, Entry::WakeRan { thread: thread(), failure: None });
                            accepted += 1;
                            if let Some(last) = last_accepted {
                                let passed = world.now.duration_since(last);
                                prop_assert!(passed >= SignedDuration::from_mins(10), "{passed} after the last one");
                            }
                            last_accepted = Some(world.now);
                        }
                    }
                    prop_assert!(runs <= MOST_RUNS && accepted <= 1);
                }
                Step::Arrive => {
                    if world.wakes.has_arrived(&thread(), "turn-2") {
                        world.by("s-4", Entry::WakeArrived { thread: thread() });
                        last_accepted = None;
                        is_open = world.wakes.requested().next().is_some();
                    }
                }
                Step::End => {
                    world.by("s-4", Entry::WakeEnded { thread: thread() });
                    is_open = false;
                }
                Step::Pass(seconds) => world.pass(seconds),
            }
        }
        // The last server takes over what the others leave.
        world.gone = SERVERS[..3].to_vec();
        world.pass(20 * MINUTE);
        prop_assert_eq!(world.may_send("s-4"), is_open && accepted == 0 && runs < MOST_RUNS);
    }
}
