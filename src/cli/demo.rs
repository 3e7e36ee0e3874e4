//! `orchestrator-boss demo`: the whole way once, with an agent that is built in. It makes a small repository, starts this
//! very server over stdio, plays the boss by MCP (four workers at once; one fails and is retried, one is cancelled, one
//! depends on another), merges, and then checks from outside that all is as promised. It needs no key and no CLI.
//!
//! It knows the server by its tools alone, like any boss.

mod answer;
mod boss;
mod check;
mod missions;
mod project;
mod show;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;

use answer::{items, text, worker_id};
use boss::Boss;
use missions::{Fate, Plan, plans};
use project::{BACKEND, Project};
use show::Show;

/// It takes a few seconds; a demo that takes this long will never end.
const CEILING: Duration = Duration::from_secs(90);
const REDRAW: Duration = Duration::from_millis(150);

#[derive(Debug, Error)]
pub enum DemoError {
    #[error("could not find the path of this program")]
    OwnPath { source: io::Error },
    #[error("could not make the demo's folder: {source}; TMPDIR says where it is made")]
    Folder { source: io::Error },
    #[error("git {command} failed: {said}")]
    Git { command: String, said: String },
    #[error("could not start the server: {said}; its log is {}", log.display())]
    Server { said: String, log: PathBuf },
    #[error("the server did not end in order: {said}")]
    Leave { said: String },
    #[error("{tool} failed: {said}")]
    Tool { tool: &'static str, said: String },
    #[error("{what} was not to be expected: {answer}")]
    Unexpected { what: String, answer: Value },
    #[error("it was stopped before its end")]
    Stopped,
    #[error("the workers were not done after {} s", CEILING.as_secs())]
    TooSlow,
    #[error("{file} should hold {wanted:?} after the merges, and holds {found:?}")]
    NotMerged { file: &'static str, wanted: &'static str, found: String },
    #[error("the repository should be clean after the merges: {status}")]
    Dirty { status: String },
    #[error("{} does not agree: {why}", path.display())]
    State { path: PathBuf, why: String },
    #[error("these processes should have ended: {}", processes.join("; "))]
    LeftRunning { processes: Vec<String> },
}

/// Plays the demo and prints what happens. The repository is kept, whatever becomes of it.
pub async fn run() -> Result<(), DemoError> {
    let began = Instant::now();
    let program = std::env::current_exe().map_err(|source| DemoError::OwnPath { source })?;
    let project = Project::make(&program)?;
    show::print(&format!("A repository for the demo: {}", project.repository.display()));

    let boss = Boss::start(&program, &project).await?;
    let played = play(&boss, &project).await;
    if played.is_err() {
        // What went wrong is told below; this is so that nothing goes on behind it.
        let _ = boss.call("cancel_all_workers", json!({"reason": "the demo failed"})).await;
    }
    let left = boss.leave().await;
    let workers = played?;
    left?;
    check::nothing_left(&project).await?;

    show::print(&format!("\n{}", show::table(&workers)));
    show::print(&format!("All merged and verified, nothing left running, {:.1} s.", began.elapsed().as_secs_f64()));
    show::print(&format!("Look at it: {}", project.repository.display()));
    Ok(())
}

/// Returns all workers as they were at the end.
async fn play(boss: &Boss, project: &Project) -> Result<Vec<Value>, DemoError> {
    let plans = plans(project);
    let mut game = Game::begin(boss, &plans).await?;
    let led = tokio::select! {
        led = game.lead() => led,
        () = tokio::time::sleep(CEILING) => Err(DemoError::TooSlow),
        _ = tokio::signal::ctrl_c() => Err(DemoError::Stopped),
    };
    game.show.finish();
    led?;
    check::files(project)?;
    check::state(project, &plans).await?;
    game.workers().await
}

struct Game<'a> {
    boss: &'a Boss,
    show: Show,
    /// With the worker that got it.
    plans: Vec<(&'a Plan, String)>,
    /// Workers from which something is still to come.
    open: Vec<String>,
    cancelled: bool,
}

impl<'a> Game<'a> {
    async fn begin(boss: &'a Boss, plans: &'a [Plan]) -> Result<Self, DemoError> {
        let show = Show::new();
        let backends = boss.call("get_backend_status", json!({"backend": BACKEND})).await?;
        match items(&backends, "/backends") {
            [backend] if backend["installed"] == true => {}
            _ => return Err(unexpected("the status of the demo's backend", &backends)),
        }
        let missions: Vec<Value> = plans.iter().map(Plan::mission).collect();
        let created = boss.call("batch_create_workers", json!({"workers": missions})).await?;
        let open: Vec<String> = items(&created, "/results").iter().map(|result| worker_id(result).to_owned()).collect();
        if created["created"] != plans.len() || open.iter().any(String::is_empty) {
            return Err(unexpected("the answer to the batch", &created));
        }
        show.say(&format!("The boss asks for {} workers, {} of them at once.", plans.len(), missions::AT_ONCE));
        let plans = plans.iter().zip(open.iter().cloned()).collect();
        Ok(Self { boss, show, plans, open, cancelled: false })
    }

    /// The boss's loop: wait, react at once, wait again.
    async fn lead(&mut self) -> Result<(), DemoError> {
        while !self.open.is_empty() {
            let answer = self.wait().await?;
            let settled = items(&answer, "/settled");
            if settled.is_empty() && text(&answer, "/status") == "idle" {
                return Err(unexpected("an idle wait with workers open", &answer));
            }
            for worker in settled {
                self.react(worker).await?;
            }
            self.redraw().await?;
        }
        Ok(())
    }

    /// One wait. What is drawn meanwhile is for the person who watches; a boss needs none of it.
    async fn wait(&mut self) -> Result<Value, DemoError> {
        let boss = self.boss;
        let wait = boss.call("wait_for_any_worker", json!({"timeout_seconds": 30}));
        tokio::pin!(wait);
        loop {
            tokio::select! {
                answer = &mut wait => return answer,
                () = tokio::time::sleep(REDRAW) => self.redraw().await?,
            }
        }
    }

    async fn redraw(&mut self) -> Result<(), DemoError> {
        let answer = self.boss.call("list_worker_missions", json!({})).await?;
        self.show.update(items(&answer, "/workers"));
        Ok(())
    }

    async fn react(&mut self, worker: &Value) -> Result<(), DemoError> {
        let id = worker_id(worker).to_owned();
        let Some(&(plan, _)) = self.plans.iter().find(|(_, worker)| *worker == id) else {
            return Err(unexpected("a worker that nobody asked for", worker));
        };
        let attempt = worker["attempt"].as_u64().unwrap_or_default();
        match (plan.fate, text(worker, "/status"), attempt) {
            (Fate::Completes, "completed", 1) | (Fate::CompletesOnRetry, "completed", 2) => self.integrate(&id).await?,
            (Fate::CompletesOnRetry, "failed", 1) => return self.retry(&id, plan.task, worker).await,
            (Fate::IsCancelled, "cancelled", 1) => {}
            _ => return Err(unexpected(&format!("this end of {id}"), worker)),
        }
        self.open.retain(|open| *open != id);
        if !self.cancelled {
            self.cancel().await?;
        }
        Ok(())
    }

    async fn integrate(&self, id: &str) -> Result<(), DemoError> {
        let merged = self.boss.call("integrate_worker", json!({"worker_id": id})).await?;
        if text(&merged, "/status") != "merged" {
            return Err(unexpected(&format!("the merge of {id}"), &merged));
        }
        self.show.say(&format!("The boss merged {id}."));
        Ok(())
    }

    async fn retry(&self, id: &str, language: &str, worker: &Value) -> Result<(), DemoError> {
        if text(worker, "/outcome/verification/result") != "failed" {
            return Err(unexpected(&format!("that {id} failed for another reason than its verification"), worker));
        }
        let said = text(worker, "/outcome/verification/output_tail").trim();
        let gist = said.lines().next_back().unwrap_or_default();
        self.show.say(&format!("The boss has {id} try again: {gist}"));
        let feedback = missions::feedback(language, said);
        self.boss.call("retry_worker", json!({"worker_id": id, "feedback": feedback})).await?;
        Ok(())
    }

    /// Cancels what has no end. It runs by now: the others only finish after all have met.
    async fn cancel(&mut self) -> Result<(), DemoError> {
        self.cancelled = true;
        for (plan, id) in self.plans.iter().filter(|(plan, _)| plan.fate == Fate::IsCancelled) {
            let reason = format!("{} has no end", plan.task);
            let answer = self.boss.call("cancel_worker", json!({"worker_id": id, "reason": reason})).await?;
            if text(&answer, "/status") != "cancelled" || answer["survivors"] != 0 {
                return Err(unexpected(&format!("the cancellation of {id}"), &answer));
            }
            self.show.say(&format!("The boss cancelled {id}; nothing of it is left."));
            self.open.retain(|open| open != id);
        }
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<Value>, DemoError> {
        let mut workers = Vec::new();
        for (_, id) in &self.plans {
            let answer = self.boss.call("get_worker_status", json!({"worker_id": id})).await?;
            workers.push(answer["worker"].clone());
        }
        Ok(workers)
    }
}

fn unexpected(what: &str, answer: &Value) -> DemoError {
    DemoError::Unexpected { what: what.to_owned(), answer: answer.clone() }
}
