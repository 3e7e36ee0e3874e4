//! `demo`: runs one batch of missions with a built-in agent. It creates a small repository, starts this server over
//! stdio and acts as its boss: four workers at once, of which one is retried and one is cancelled, and one that depends
//! on another. It merges their branches and checks the result. It needs no key and no agent CLI.
//!
//! It uses only the server's tools, like any boss.

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
use boss::BossClient;
use missions::{ExpectedResult, PlannedMission, plans};
use project::{BACKEND, Project};
use show::Display;

use super::setup::program::in_a_shell;
use super::shell::quoted;

/// Time limit for the demo, which usually takes a few seconds.
const LIMIT: Duration = Duration::from_secs(90);
const REDRAW: Duration = Duration::from_millis(150);

#[derive(Debug, Error)]
pub enum DemoError {
    #[error("cannot find the path of this program")]
    OwnPath { source: io::Error },
    #[error("cannot create the demo's folder: {source}; TMPDIR sets its location")]
    Folder { source: io::Error },
    #[error("git {command} failed: {said}")]
    Git { command: String, said: String },
    #[error("cannot start the server: {said}; its log is {}", log.display())]
    Server { said: String, log: PathBuf },
    #[error("the server did not shut down cleanly: {said}")]
    Shutdown { said: String },
    #[error("{tool} failed: {said}")]
    Tool { tool: &'static str, said: String },
    #[error("unexpected {what}: {answer}")]
    Unexpected { what: String, answer: Value },
    #[error("interrupted")]
    Stopped,
    #[error("the workers had not finished after {} s", LIMIT.as_secs())]
    TooSlow,
    #[error("{file} holds {found:?} after the merges, expected {wanted:?}")]
    NotMerged { file: &'static str, wanted: &'static str, found: String },
    #[error("the repository is not clean after the merges: {status}")]
    Dirty { status: String },
    #[error("wrong content of {}: {why}", path.display())]
    State { path: PathBuf, why: String },
    #[error("processes still running: {}", processes.join("; "))]
    LeftRunning { processes: Vec<String> },
}

/// Runs the demo and prints its progress. The repository is kept.
pub async fn run() -> Result<(), DemoError> {
    let began = Instant::now();
    let program = std::env::current_exe().map_err(|source| DemoError::OwnPath { source })?;
    let project = Project::make(&program)?;
    show::print(&format!("Demo repository: {}", project.repository.display()));

    let boss = BossClient::start(&program, &project).await?;
    let played = play(&boss, &project).await;
    if played.is_err() {
        // The error is reported below; no worker may keep running after it.
        let _ = boss.call("cancel_all_workers", json!({"reason": "the demo failed"})).await;
    }
    let left = boss.close().await;
    let workers = played?;
    left?;
    check::no_process_left(&project).await?;

    show::print(&format!("\n{}", show::table(&workers)));
    show::print(&format!("All merged and verified, no process left, {:.1} s.", began.elapsed().as_secs_f64()));
    show::print(&to_try(&project));
    Ok(())
}

/// Returns commands to try in the demo's repository, and the one that removes it.
fn to_try(project: &Project) -> String {
    let program = in_a_shell();
    let commands = ["status w-2", "logs w-2", "diff w-5", "retry w-1 --feedback 'Greet once more'", "report"];
    let commands: Vec<String> = commands.iter().map(|command| format!("  {program} {command}")).collect();
    format!(
        "\nTo try next:\n  cd {}\n{}\nTo remove it: rm -r {}",
        quoted(&project.repository),
        commands.join("\n"),
        quoted(&project.folder)
    )
}

/// Runs the missions and returns the final state of all workers.
async fn play(boss: &BossClient, project: &Project) -> Result<Vec<Value>, DemoError> {
    let plans = plans(project);
    let mut run = DemoRun::begin(boss, &plans).await?;
    let driven = tokio::select! {
        driven = run.drive() => driven,
        () = tokio::time::sleep(LIMIT) => Err(DemoError::TooSlow),
        _ = tokio::signal::ctrl_c() => Err(DemoError::Stopped),
    };
    run.show.finish();
    driven?;
    check::files(project)?;
    check::state(project, &plans).await?;
    run.workers().await
}

struct DemoRun<'a> {
    boss: &'a BossClient,
    show: Display,
    /// The missions, each with the id of its worker.
    plans: Vec<(&'a PlannedMission, String)>,
    /// Workers that have not finished.
    open: Vec<String>,
    cancelled: bool,
}

impl<'a> DemoRun<'a> {
    async fn begin(boss: &'a BossClient, plans: &'a [PlannedMission]) -> Result<Self, DemoError> {
        let show = Display::new();
        let backends = boss.call("get_backend_status", json!({"backend": BACKEND})).await?;
        match items(&backends, "/backends") {
            [backend] if backend["installed"] == true => {}
            _ => return Err(unexpected("status of the demo's backend", &backends)),
        }
        let missions: Vec<Value> = plans.iter().map(PlannedMission::mission).collect();
        let created = boss.call("batch_create_workers", json!({"workers": missions})).await?;
        let open: Vec<String> = items(&created, "/results").iter().map(|result| worker_id(result).to_owned()).collect();
        if created["created"] != plans.len() || open.iter().any(String::is_empty) {
            return Err(unexpected("answer to the batch", &created));
        }
        show.print(&format!("The boss creates {} workers, {} of them at once.", plans.len(), missions::AT_ONCE));
        let plans = plans.iter().zip(open.iter().cloned()).collect();
        Ok(Self { boss, show, plans, open, cancelled: false })
    }

    /// Waits for workers and handles each as it settles.
    async fn drive(&mut self) -> Result<(), DemoError> {
        while !self.open.is_empty() {
            let answer = self.wait().await?;
            let settled = items(&answer, "/settled");
            if settled.is_empty() && text(&answer, "/status") == "idle" {
                return Err(unexpected("idle wait with open workers", &answer));
            }
            for worker in settled {
                self.react(worker).await?;
            }
            self.redraw().await?;
        }
        Ok(())
    }

    /// Waits for a worker. The redraw is for the user only; a boss needs none.
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
            return Err(unexpected("worker without a mission", worker));
        };
        let attempt = worker["attempt"].as_u64().unwrap_or_default();
        match (plan.expected, text(worker, "/status"), attempt) {
            (ExpectedResult::Completes, "completed", 1) | (ExpectedResult::CompletesOnRetry, "completed", 2) => {
                self.integrate(&id).await?
            }
            (ExpectedResult::CompletesOnRetry, "failed", 1) => return self.retry(&id, plan.task, worker).await,
            (ExpectedResult::IsCancelled, "cancelled", 1) => {}
            _ => return Err(unexpected(&format!("outcome of {id}"), worker)),
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
            return Err(unexpected(&format!("merge of {id}"), &merged));
        }
        self.show.print(&format!("The boss merged {id}."));
        Ok(())
    }

    async fn retry(&self, id: &str, language: &str, worker: &Value) -> Result<(), DemoError> {
        if text(worker, "/outcome/verification/result") != "failed" {
            return Err(unexpected(&format!("failure of {id}, which is not its verification"), worker));
        }
        let said = text(worker, "/outcome/verification/output_tail").trim();
        let gist = said.lines().next_back().unwrap_or_default();
        self.show.print(&format!("The boss retries {id}: {gist}"));
        let feedback = missions::feedback(language, said);
        self.boss.call("retry_worker", json!({"worker_id": id, "feedback": feedback})).await?;
        Ok(())
    }

    /// Cancels the endless mission. It runs by now, since the others finish only after all have met.
    async fn cancel(&mut self) -> Result<(), DemoError> {
        self.cancelled = true;
        for (plan, id) in self.plans.iter().filter(|(plan, _)| plan.expected == ExpectedResult::IsCancelled) {
            let reason = format!("{} never ends", plan.task);
            let answer = self.boss.call("cancel_worker", json!({"worker_id": id, "reason": reason})).await?;
            if text(&answer, "/status") != "cancelled" || answer["survivors"] != 0 {
                return Err(unexpected(&format!("cancellation of {id}"), &answer));
            }
            self.show.print(&format!("The boss cancelled {id}; no process is left."));
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
