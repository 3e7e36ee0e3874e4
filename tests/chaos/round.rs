//! One round: the bosses, each with one or two servers, and the actions on them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dice::Dice;
use crate::hosts::Parts;
use crate::kind::KINDS;
use crate::model::Model;
use crate::server::{Answer, Server};
use crate::world::World;
use orchestrator_boss::process::{Signal, send};

/// Maximum number of missions; more would only make a round longer.
const MOST_MISSIONS: usize = 9;
const STEPS: usize = 16;
/// Steps of a round with a cluster, where each takes longer and a part of them is for the cluster.
const STEPS_ON_CLUSTER: usize = 24;
/// The time in which a cancellation is answered if no part of the cluster is dead. It is not waited for any longer.
const SOON: Duration = Duration::from_secs(1);
/// The sessions of the bosses; the last boss has none.
pub const BOSSES: [Option<&str>; 3] = [Some("first-boss"), Some("second-boss"), None];
/// The boss of each window; the first boss has two.
const WINDOWS: [usize; 4] = [0, 0, 1, 2];

pub struct Round<'a> {
    pub world: &'a World,
    pub dice: Dice,
    pub model: Model,
    /// Which parts of the cluster are dead.
    pub parts: Parts,
    windows: Vec<Option<Server>>,
    /// Cancelled waits: window and request. They may have been answered before the cancellation.
    cancelled: Vec<(usize, u64)>,
    /// Waits that go on in the background: the window that began each, and its task.
    tasks: Vec<(usize, String)>,
    /// Cancellations of workers that are not answered yet: window, request and tool.
    pending: Vec<(usize, u64, &'static str)>,
}

impl<'a> Round<'a> {
    pub fn new(world: &'a World, seed: u64) -> Self {
        let windows = WINDOWS.iter().map(|_| None).collect();
        Self {
            world,
            dice: Dice::new(seed),
            model: Model::default(),
            parts: Parts::default(),
            windows,
            cancelled: Vec::new(),
            tasks: Vec::new(),
            pending: Vec::new(),
        }
    }

    pub fn run(&mut self) {
        self.open(0);
        self.create(0);
        let steps = if self.world.cluster.is_some() { STEPS_ON_CLUSTER } else { STEPS };
        for _ in 0..steps {
            let at = self.dice.below(WINDOWS.len() as u64) as usize;
            // A dead server stays away for a while, so that others take over its workers.
            if self.windows[at].is_some() || self.dice.once_in(2) {
                self.step(at);
            }
        }
        self.finish();
    }

    fn step(&mut self, at: usize) {
        self.open(at);
        if self.world.cluster.is_some() && self.dice.once_in(3) {
            return self.move_cluster(at);
        }
        match self.dice.below(38) {
            0..=6 => self.create(at),
            7..=9 => self.wait(at),
            10 | 11 => self.wait_side_by_side(at),
            12 => self.wait_and_cancel(at),
            13 | 14 => self.cancel(at),
            15 => self.cancel_all(at),
            16..=18 => self.message(at),
            19 | 20 => self.retry(at),
            34 | 35 => self.wait_in_background(at),
            36 | 37 => self.poll_tasks(at),
            21 | 22 => self.integrate(at),
            23 => self.remove_worktree(at),
            24 => self.call_on_foreign_worker(at),
            25 => self.kill(at),
            26 => self.kill_two(at),
            27 => self.stop(at),
            28 => self.leave(at),
            29 | 30 => self.kill_process_of(at, "supervisor"),
            31 => {
                self.kill_process_of(at, "supervisor");
                self.kill(at);
            }
            _ => self.kill_process_of(at, "cli"),
        }
    }

    /// Starts a server in this window, and repeats the unanswered requests of its boss.
    fn open(&mut self, at: usize) {
        while self.windows[at].as_ref().is_none_or(Server::is_dead) {
            self.windows[at] = Some(Server::start(self.world, BOSSES[WINDOWS[at]]));
            self.repeat_unanswered(at);
        }
    }

    fn repeat_unanswered(&mut self, at: usize) {
        let mine = |model: &Model, it: usize| model.batches[it].boss == WINDOWS[at] && !model.batches[it].answered;
        for batch in 0..self.model.batches.len() {
            if mine(&self.model, batch) {
                let call = self.model.call(batch, self.world);
                let answer = self.call_safely(at, "batch_create_workers", call);
                self.take_created(batch, answer);
            }
        }
    }

    /// Calls a tool. Sometimes kills the server before it can answer, or just after.
    fn call(&mut self, at: usize, tool: &str, arguments: Value) -> Option<Answer> {
        let id = self.begin(at, tool, arguments)?;
        self.windows[at].as_mut()?.answer(id)
    }

    /// Begins a call. Returns `None` if the server was killed.
    fn begin(&mut self, at: usize, tool: &str, arguments: Value) -> Option<u64> {
        if self.dice.once_in(9) {
            let pause = Duration::from_millis(self.dice.below(30));
            let server = self.windows[at].as_mut()?;
            server.begin(tool, arguments);
            std::thread::sleep(pause);
            self.kill(at);
            return None;
        }
        Some(self.windows[at].as_mut()?.begin(tool, arguments))
    }

    pub fn call_safely(&mut self, at: usize, tool: &str, arguments: Value) -> Option<Answer> {
        self.windows[at].as_mut()?.call(tool, arguments)
    }

    fn create(&mut self, at: usize) {
        if self.model.missions.len() >= MOST_MISSIONS {
            return;
        }
        let boss = WINDOWS[at];
        if self.dice.once_in(4) {
            return self.create_race(at);
        }
        let first = self.model.missions.len() as u64;
        let mut kinds = Vec::new();
        for number in first..=first + self.dice.below(3) {
            let kind = KINDS[self.dice.below(KINDS.len() as u64) as usize];
            // Dependencies are of this batch or earlier ones, also of another boss once that was answered.
            let mut before = self.model.known(boss, true);
            before.extend(self.model.known(boss, false));
            before.extend((first..number).map(|number| format!("r{number}")));
            let needs = if self.dice.once_in(4) { self.dice.one_of(&before).cloned() } else { None };
            kinds.push((kind, needs.into_iter().collect()));
        }
        let batch = self.model.plan(boss, &kinds);
        self.draw_launchers(batch);
        let call = self.model.call(batch, self.world);
        let answer = self.call(at, "batch_create_workers", call);
        self.take_created(batch, answer);
    }

    fn create_race(&mut self, at: usize) {
        let boss = WINDOWS[at];
        let before = self.model.known(boss, true);
        let needs = if self.dice.once_in(4) { self.dice.one_of(&before).cloned() } else { None };
        let batch = self.model.plan_race(boss, needs.as_slice());
        self.draw_launchers(batch);
        let call = self.model.call(batch, self.world);
        let answer = self.call(at, "batch_create_workers", call);
        self.take_created(batch, answer);
    }

    fn take_created(&mut self, batch: usize, answer: Option<Answer>) {
        if let Some(answer) = answer {
            self.model.take_created(batch, &answer.expect("the batch is accepted"));
        }
    }

    fn wait(&mut self, at: usize) {
        let arguments = self.wait_arguments(at);
        let answer = self.call(at, "wait_for_any_worker", arguments);
        self.take_wait(at, answer);
    }

    /// Returns the arguments of a wait, with or without names.
    fn wait_arguments(&mut self, at: usize) -> Value {
        let mine = self.model.known(WINDOWS[at], true);
        let named = if self.dice.once_in(2) { mine } else { Vec::new() };
        let named: Vec<&String> = named.iter().filter(|_| self.dice.once_in(2)).collect();
        let names: Vec<&str> = named.into_iter().map(|request| self.model.worker(request)).collect();
        json!({ "worker_ids": names, "timeout_seconds": self.dice.below(2) })
    }

    pub fn take_wait(&mut self, at: usize, answer: Option<Answer>) -> Option<String> {
        let answer = answer?.expect("a wait never fails");
        self.model.take_wait(WINDOWS[at], &answer);
        answer["status"].as_str().map(str::to_owned)
    }

    fn wait_side_by_side(&mut self, at: usize) {
        let calls: Vec<Value> = (0..3).map(|_| self.wait_arguments(at)).collect();
        let Some(server) = &mut self.windows[at] else { return };
        let waits: Vec<u64> = calls.into_iter().map(|call| server.begin("wait_for_any_worker", call)).collect();
        for wait in waits {
            let answer = self.windows[at].as_mut().and_then(|server| server.answer(wait));
            self.take_wait(at, answer);
        }
    }

    fn wait_in_background(&mut self, at: usize) {
        let arguments = self.wait_arguments(at);
        let Some(server) = &mut self.windows[at] else { return };
        match server.begin_background_wait(&arguments) {
            Some(Ok(task)) => self.tasks.push((at, task)),
            Some(Err(answer)) => self.model.take_wait(WINDOWS[at], &answer),
            None => {}
        }
        if self.dice.once_in(4) {
            self.kill(at);
        }
    }

    /// Asks this window's server for the end of all background waits, whichever server began them. An answer that was
    /// read is the same for ever, so it counts once.
    fn poll_tasks(&mut self, at: usize) {
        for (began, task) in std::mem::take(&mut self.tasks) {
            let state = self.windows[at].as_mut().and_then(|server| server.task(&task));
            match state.as_ref().map(|state| state["status"].as_str().unwrap_or_default()) {
                Some("completed") => {
                    let answer = state.map(|state| state["result"]["structuredContent"].clone());
                    self.model.take_wait(WINDOWS[began], &answer.unwrap_or_default());
                }
                Some("cancelled") => {}
                Some("working") | None => self.tasks.push((began, task)),
                Some(other) => panic!("a wait is {other}: {state:?}"),
            }
        }
    }

    fn wait_and_cancel(&mut self, at: usize) {
        let pause = Duration::from_millis(self.dice.below(60));
        let Some(server) = &mut self.windows[at] else { return };
        let wait = server.begin("wait_for_any_worker", json!({ "timeout_seconds": 20 }));
        std::thread::sleep(pause);
        server.cancel(wait);
        self.cancelled.push((at, wait));
    }

    /// Takes the answers to calls that were cancelled too late. A dead server sends no more answers.
    fn take_answers_to_cancelled(&mut self) {
        for (at, wait) in std::mem::take(&mut self.cancelled) {
            let Some(server) = &mut self.windows[at] else { continue };
            match server.early_answer(wait) {
                Some(answer) => drop(self.take_wait(at, Some(answer))),
                None => self.cancelled.push((at, wait)),
            }
        }
    }

    fn pick_own(&mut self, at: usize) -> Option<String> {
        self.dice.one_of(&self.model.known(WINDOWS[at], true)).cloned()
    }

    fn cancel(&mut self, at: usize) {
        let Some(request) = self.pick_own(at) else { return };
        self.model.mission(&request).disturbed.cancelled = true;
        let arguments = json!({ "worker_id": self.model.worker(&request) });
        self.end_workers(at, "cancel_worker", arguments);
    }

    fn cancel_all(&mut self, at: usize) {
        for mission in self.model.missions.values_mut().filter(|mission| mission.boss == WINDOWS[at]) {
            mission.disturbed.cancelled = true;
        }
        self.end_workers(at, "cancel_all_workers", json!({}));
    }

    /// Cancels. The end of a worker may wait until a dead part of the cluster is back, so its answer is taken later.
    fn end_workers(&mut self, at: usize, tool: &'static str, arguments: Value) {
        let Some(id) = self.begin(at, tool, arguments) else { return };
        let patience = if self.world.cluster.is_some() { SOON } else { self.world.ceiling() };
        match self.windows[at].as_mut().and_then(|server| server.answer_within(id, patience)) {
            Some(answer) => check_cancelled(tool, answer),
            None if self.world.cluster.is_some() => self.pending.push((at, id, tool)),
            None => panic!("no answer to {tool} within {patience:?}"),
        }
    }

    /// Takes the answers of this window that have come, or of all windows in the end.
    fn take_pending(&mut self, of: Option<usize>) {
        for (at, id, tool) in std::mem::take(&mut self.pending) {
            let Some(server) = &mut self.windows[at] else { continue };
            match of {
                None => check_cancelled(tool, server.answer(id)),
                Some(window) if window == at => check_cancelled(tool, server.early_answer(id)),
                Some(_) => self.pending.push((at, id, tool)),
            }
        }
    }

    fn message(&mut self, at: usize) {
        let Some(request) = self.pick_own(at) else { return };
        self.model.mission(&request).disturbed.messaged = true;
        let delivery = if self.dice.once_in(2) { "when_ready" } else { "interrupt" };
        let worker = self.model.worker(&request);
        let message = json!({"worker_id": worker, "message": "FAKE:\nsay heard", "delivery": delivery});
        self.note_dead_parts(&request);
        if let Some(answer) = self.call(at, "send_message_to_worker", message) {
            answer.expect("a message is taken");
        }
    }

    fn retry(&mut self, at: usize) {
        let Some(request) = self.pick_own(at) else { return };
        let backend = if self.dice.once_in(3) { "other" } else { "fake" };
        let worker = self.model.worker(&request);
        let mut arguments = json!({"worker_id": worker, "fresh": self.dice.once_in(2), "backend": backend});
        self.draw_launcher_of_retry(&request, &mut arguments);
        let answer = self.call(at, "retry_worker", arguments);
        // Refused while the worker is open.
        self.model.mission(&request).disturbed.retried |= !matches!(answer, Some(Err(_)));
    }

    fn integrate(&mut self, at: usize) {
        if self.dice.once_in(4) {
            return self.integrate_train(at);
        }
        let Some(request) = self.pick_own(at) else { return };
        let dry_run = self.dice.once_in(4);
        let strategy = if self.dice.once_in(3) { "squash" } else { "merge" };
        let worker = self.model.worker(&request);
        let mut arguments = json!({"worker_id": worker, "dry_run": dry_run, "strategy": strategy});
        if self.dice.once_in(3) {
            arguments["verify_command"] = json!("true");
        }
        self.model.mission(&request).merge_asked |= !dry_run;
        if let Some(Ok(answer)) = self.call(at, "integrate_worker", arguments) {
            assert_eq!(answer["conflicts"], json!([]), "{answer}");
            let mission = self.model.mission(&request);
            assert!(mission.may_end_as("completed"), "{request} never completed, and was merged: {answer}");
            // The supervisor of the verification may be killed, too.
            mission.merged |= !dry_run && answer["status"] != "could_not_verify";
        }
    }

    fn integrate_train(&mut self, at: usize) {
        let requests: Vec<_> = (0..3).filter_map(|_| self.pick_own(at)).collect();
        let ids: Vec<String> = requests.iter().map(|request| self.model.worker(request).to_owned()).collect();
        if ids.is_empty() {
            return;
        }
        requests.iter().for_each(|request| self.model.mission(request).merge_asked = true);
        let arguments = json!({"worker_ids": ids, "verify_command": "true"});
        // Workers that have not completed are left out.
        let Some(Ok(answer)) = self.call(at, "integrate_worker", arguments) else { return };
        for (request, id) in requests.iter().zip(&ids) {
            if answer["integrated"].as_array().is_some_and(|integrated| integrated.contains(&json!(id))) {
                let mission = self.model.mission(request);
                assert!(mission.may_end_as("completed"), "{request} never completed, and was merged: {answer}");
                mission.merged = true;
            }
        }
    }

    fn remove_worktree(&mut self, at: usize) {
        let Some(request) = self.pick_own(at) else { return };
        let worker = self.model.worker(&request);
        let (force, delete_branch) = (self.dice.once_in(2), self.dice.once_in(3));
        let arguments = json!({"worker_id": worker, "force": force, "delete_branch": delete_branch});
        // Refused while the worker is open, and kept if work would be lost. The check at the end covers both.
        drop(self.call(at, "remove_worktree", arguments));
    }

    /// Calls a tool on a worker of another boss, which must be refused.
    fn call_on_foreign_worker(&mut self, at: usize) {
        let theirs = self.model.known(WINDOWS[at], false);
        let Some(request) = self.dice.one_of(&theirs) else { return };
        let arguments = json!({ "worker_id": self.model.worker(request) });
        let tools = ["cancel_worker", "retry_worker", "wait_for_worker", "integrate_worker"];
        let tool = tools[self.dice.below(tools.len() as u64) as usize];
        if let Some(answer) = self.call(at, tool, arguments) {
            assert!(answer.is_err(), "{tool} of another boss's {request}: {answer:?}");
        }
    }

    fn kill(&mut self, at: usize) {
        if let Some(server) = &mut self.windows[at] {
            server.kill();
        }
        self.forget(at);
    }

    /// Removes a dead server, after its earlier answers were taken.
    fn forget(&mut self, at: usize) {
        self.take_answers_to_cancelled();
        self.take_pending(Some(at));
        self.cancelled.retain(|(window, _)| *window != at);
        self.windows[at] = None;
    }

    fn kill_two(&mut self, at: usize) {
        self.kill(at);
        self.kill((at + 1) % WINDOWS.len());
    }

    fn stop(&mut self, at: usize) {
        let time = Duration::from_millis(100 + self.dice.below(900));
        if let Some(server) = &self.windows[at] {
            server.stop_for(time);
        }
    }

    fn leave(&mut self, at: usize) {
        if let Some(server) = &mut self.windows[at] {
            server.leave();
        }
        self.forget(at);
    }

    /// Kills a process that the status file names, and only while that process is alive.
    fn kill_process_of(&mut self, at: usize, which: &str) {
        let Some(request) = self.pick_for_kill(at, which) else { return };
        let Some(process) = self.world.process_of(self.model.worker(&request), which) else { return };
        let disturbed = &mut self.model.mission(&request).disturbed;
        match which {
            "supervisor" => disturbed.supervisor_killed = true,
            _ => disturbed.cli_killed = true,
        }
        send(&process, Signal::Kill);
    }

    /// Picks a worker of this boss. With a cluster, where a worker runs for a small part of a round, one that runs.
    fn pick_for_kill(&mut self, at: usize, which: &str) -> Option<String> {
        if self.world.cluster.is_none() {
            return self.pick_own(at);
        }
        let mut running = self.model.known(WINDOWS[at], true);
        running.retain(|request| self.world.process_of(self.model.worker(request), which).is_some());
        self.dice.one_of(&running).cloned()
    }

    /// Starts all servers again, ends hanging workers, and waits until nothing more is reported.
    fn finish(&mut self) {
        self.bring_back_enough();
        (0..WINDOWS.len()).for_each(|at| self.open(at));
        for at in 1..WINDOWS.len() {
            self.end_hanging_workers(at);
        }
        for at in 0..WINDOWS.len() {
            let began = Instant::now();
            while self.wait_for_reports(at) != "idle" {
                self.resume_nodes();
                assert!(began.elapsed() < self.world.ceiling(), "not all settle: {:#?}", self.list(at));
            }
        }
        self.take_answers_to_cancelled();
        self.take_pending(None);
        crate::check::leases(self.world);
        (0..WINDOWS.len()).for_each(|at| self.leave(at));
    }

    fn end_hanging_workers(&mut self, at: usize) {
        let mine = self.model.known(WINDOWS[at], true);
        let mut hanging: Vec<&String> = mine.iter().filter(|it| self.model.missions[*it].kind.hangs()).collect();
        hanging.retain(|it| !self.world.is_abandoned(self.model.worker(it)));
        let server = self.windows[at].as_mut().expect("an open window");
        let cancel =
            |request: &&String| server.begin("cancel_worker", json!({"worker_id": self.model.worker(request)}));
        let calls: Vec<u64> = hanging.iter().map(cancel).collect();
        for call in calls {
            let answer = self.windows[at].as_mut().and_then(|server| server.answer(call)).expect("a live server");
            assert_eq!(answer.as_ref().expect("answered")["survivors"], 0, "{answer:?}");
        }
    }

    fn wait_for_reports(&mut self, at: usize) -> String {
        let answer = self.call_safely(at, "wait_for_any_worker", json!({ "timeout_seconds": 5 }));
        self.take_wait(at, answer).expect("the server is alive")
    }

    fn list(&mut self, at: usize) -> Option<Answer> {
        self.call_safely(at, "list_worker_missions", json!({ "scope": "all" }))
    }
}

/// Checks the answer to a cancellation. A dead server sends none.
fn check_cancelled(tool: &str, answer: Option<Answer>) {
    let Some(answer) = answer else { return };
    let answer = answer.expect("a cancellation is answered");
    match tool {
        "cancel_worker" => assert_eq!(answer["survivors"], 0, "{answer}"),
        _ => assert_eq!(answer["failed"], json!([]), "{answer}"),
    }
}
