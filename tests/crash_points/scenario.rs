//! A fixed sequence of all kinds of calls, by a boss that repeats unanswered requests.

use std::time::Instant;

use orchestrator_boss::process::{Signal, send};
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::model::Model;
use crate::server::{Answer, Server};
use crate::support::wait::until_some;
use crate::world::{CEILING, World};

const BOSS: usize = 0;

pub struct Scenario<'a> {
    world: &'a World,
    armed: String,
    /// The occurrence at which the program dies.
    time: usize,
    pub model: Model,
    server: Option<Server>,
}

impl<'a> Scenario<'a> {
    pub fn new(world: &'a World, armed: &str) -> Self {
        let time = armed.split_once(':').and_then(|(_, time)| time.parse().ok()).unwrap_or(1);
        Self { world, armed: armed.to_owned(), time, model: Model::default(), server: None }
    }

    pub fn run(&mut self) {
        self.create();
        self.race();
        self.message("r3");
        self.be_woken_by_the_cancellation_of("r8");
        self.wait_for("r0");
        self.integrate("r0");
        self.wait_for("r6");
        self.retry("r6");
        self.kill_supervisor_of("r7");
        // The next server takes over.
        self.server = None;
        self.cancel("r3");
        self.cancel("r7");
        self.wait_until_idle();
        self.prune("r0");
        self.remove_worktree("r0");
        self.leave();
        // If that was the crash, another server, which is not armed, writes the state file.
        self.armed.clear();
        self.wait_until_idle();
        self.leave();
    }

    /// Checks that the crash happened, and its effect on a worker whose supervisor died.
    pub fn check_crash(&mut self) -> Result<(), String> {
        let log = std::fs::read_to_string(self.world.path("crashes")).unwrap_or_default();
        let Some(dead) = log.lines().nth(self.time - 1) else {
            return Err(format!("the scenario reached the step {} times", log.lines().count()));
        };
        for (request, mission) in &mut self.model.missions {
            if dead.contains(&format!("-{request}/attempts/")) {
                (mission.disturbed.supervisor_killed, mission.disturbed.start_failed) = (true, true);
            }
        }
        Ok(())
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let log = self.world.path("crashes").display().to_string();
        vec![("ORCHESTRATOR_CRASH_AT", self.armed.clone()), ("ORCHESTRATOR_CRASH_LOG", log)]
    }

    /// Calls a tool, and repeats the call with new servers until one answers.
    fn ask(&mut self, tool: &str, arguments: &Value) -> Answer {
        self.until_answered(|server| server.call(tool, arguments.clone()))
    }

    fn until_answered<T>(&mut self, mut ask: impl FnMut(&mut Server) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            let environment = self.environment();
            let server =
                self.server.get_or_insert_with(|| Server::start_with(self.world, Some("first-boss"), &environment));
            if let Some(answer) = ask(server) {
                return answer;
            }
            assert!(began.elapsed() < CEILING, "it dies again and again");
            self.server = None;
        }
    }

    fn create(&mut self) {
        let alone = |kind| (kind, Vec::new());
        let after = |kind, need: &str| (kind, vec![need.to_owned()]);
        let batch = self.model.plan(
            BOSS,
            &[
                alone(Kind::Commits),
                after(Kind::CommitsSlowly, "r0"),
                alone(Kind::VerifyPasses),
                alone(Kind::Hangs),
                alone(Kind::LeavesWork),
                alone(Kind::FailsOnce),
                alone(Kind::Crashes),
                alone(Kind::Hangs),
                after(Kind::Commits, "r3"),
                alone(Kind::VerifyFails),
            ],
        );
        let call = self.model.call(batch, self.world);
        let answer = self.ask("batch_create_workers", &call).expect("the batch is accepted");
        self.model.take_created(batch, &answer);
    }

    fn race(&mut self) {
        let batch = self.model.plan_race(BOSS, &[]);
        let call = self.model.call(batch, self.world);
        let answer = self.ask("batch_create_workers", &call).expect("the race is accepted");
        self.model.take_created(batch, &answer);
    }

    fn named(&self, request: &str) -> Value {
        json!({ "worker_id": self.model.worker(request) })
    }

    fn message(&mut self, request: &str) {
        self.model.mission(request).disturbed.messaged = true;
        let message = json!({"worker_id": self.model.worker(request), "message": "FAKE:\nsay heard"});
        self.ask("send_message_to_worker", &message).expect("a message is taken");
    }

    fn cancel(&mut self, request: &str) {
        self.model.mission(request).disturbed.cancelled = true;
        let answer = self.ask("cancel_worker", &self.named(request)).expect("a cancellation is answered");
        assert_eq!(answer["survivors"], 0, "{answer}");
    }

    fn integrate(&mut self, request: &str) {
        self.model.mission(request).merge_asked = true;
        // Refused if the crash was that of its supervisor.
        let order = json!({"worker_id": self.model.worker(request), "verify_command": "true"});
        let mut has_died = false;
        let answer = loop {
            let answer = self.ask("integrate_worker", &order);
            let is = |status: &str| answer.as_ref().is_ok_and(|answer| answer["status"] == status);
            // The supervisor of the verification died once: the answer reports it, and no branch moved.
            let once_more = is("running") || is("could_not_verify") && !std::mem::replace(&mut has_died, true);
            if !once_more {
                break answer;
            }
        };
        let is_in = |answer: &Value| {
            ["merged", "already_merged", "already_integrated"].iter().any(|it| answer["status"] == *it)
        };
        assert!(answer.as_ref().is_ok_and(is_in) || answer.is_err(), "{answer:?}");
        self.model.mission(request).merged = answer.is_ok();
        self.until_verifications_are_removed();
    }

    /// Waits until the next server has removed the verifications of a dead one.
    fn until_verifications_are_removed(&mut self) {
        let began = Instant::now();
        while self.world.state_dir().join("integrations").exists() {
            assert!(began.elapsed() < CEILING, "a verification was left");
            self.ask("list_worker_missions", &json!({})).expect("a list");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn retry(&mut self, request: &str) {
        self.model.mission(request).disturbed.retried = true;
        // Refused if the unanswered call before had its effect.
        drop(self.ask("retry_worker", &self.named(request)));
    }

    fn remove_worktree(&mut self, request: &str) {
        let answer = self.ask("remove_worktree", &self.named(request));
        answer.expect("an answer to the removal");
    }

    /// Deletes builds with the command, and repeats it until it succeeds.
    fn prune(&mut self, request: &str) {
        let worktree = self.world.worktree(self.model.worker(request));
        let build = worktree.join("target");
        std::fs::create_dir_all(&build).expect("a folder");
        for (file, text) in [(".gitignore", "*\n"), ("CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n")] {
            std::fs::write(build.join(file), text).expect("a file");
        }
        let began = Instant::now();
        loop {
            let mut command = self.world.command(env!("CARGO_BIN_EXE_orchestrator-boss"));
            command.args(["clean", "--builds", "--yes", "--config"]).arg(self.world.settings_file());
            let output = command.envs(self.environment()).output().expect("the program starts");
            let is_dead = output.status.code().is_none();
            // After each crash, the build is complete or gone.
            assert_eq!(build.exists(), build.join("CACHEDIR.TAG").exists());
            if !is_dead {
                assert!(output.status.success(), "{output:?}");
                break;
            }
            assert!(began.elapsed() < CEILING, "it dies again and again");
        }
        assert!(!build.exists() && !worktree.join(".orchestrator").exists(), "the builds are deleted");
    }

    fn kill_supervisor_of(&mut self, request: &str) {
        self.model.mission(request).disturbed.supervisor_killed = true;
        let began = Instant::now();
        loop {
            if let Some(supervisor) = self.world.process_of(self.model.worker(request), "supervisor") {
                send(&supervisor, Signal::Kill);
                return;
            }
            if self.has_settled(request) {
                return;
            }
            assert!(began.elapsed() < CEILING, "{request} never starts");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn has_settled(&mut self, request: &str) -> bool {
        let answer = self.ask("get_worker_status", &self.named(request)).expect("a known worker");
        !answer["worker"]["outcome"].is_null()
    }

    /// Waits in the background for a worker that does not end by itself, cancels it, and asks for the end of the wait until
    /// it is over.
    fn be_woken_by_the_cancellation_of(&mut self, request: &str) {
        let began = Instant::now();
        loop {
            let arguments = json!({"worker_ids": [self.model.worker(request)]});
            let answer = match self.until_answered(|server| server.begin_background_wait(&arguments)) {
                Err(answer) => answer,
                Ok(task) => {
                    self.cancel(request);
                    until_some("the end of the wait", || {
                        let state = self.until_answered(|server| server.task(&task));
                        assert!(["working", "completed"].map(Value::from).contains(&state["status"]), "{state:#}");
                        (state["status"] == "completed").then(|| state["result"]["structuredContent"].clone())
                    })
                }
            };
            self.model.take_wait(BOSS, &answer);
            if answer["settled"] != json!([]) {
                return;
            }
            assert!(began.elapsed() < CEILING, "{request} never settles: {answer:#}");
        }
    }

    fn wait_for(&mut self, request: &str) {
        let began = Instant::now();
        loop {
            let arguments = json!({"worker_ids": [self.model.worker(request)], "timeout_seconds": 20});
            let answer = self.ask("wait_for_any_worker", &arguments).expect("a wait never fails");
            self.model.take_wait(BOSS, &answer);
            if answer["settled"] != json!([]) {
                return;
            }
            assert!(began.elapsed() < CEILING, "{request} never settles: {answer:#}");
        }
    }

    fn wait_until_idle(&mut self) {
        let began = Instant::now();
        loop {
            let answer = self.ask("wait_for_any_worker", &json!({ "timeout_seconds": 5 }));
            let answer = answer.expect("a wait never fails");
            self.model.take_wait(BOSS, &answer);
            if answer["status"] == "idle" {
                return crate::check::leases(self.world);
            }
            assert!(began.elapsed() < CEILING, "not all settle: {answer:#}");
        }
    }

    fn leave(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.leave();
        }
    }
}
