//! Answers of bosses and the user to the questions of workers.
//!
//! The supervisor decides which answer counts, in the order of its inbox. This module checks an answer against the
//! worker's status file, posts it, and waits until the supervisor has read it. So servers and one-shot clients need no
//! coordination. It decides nothing, and changes no record.

use std::time::Duration;

use tokio::time::Instant;

use super::actor_handle::ActorHandle;
use super::answers::{AnswerRequest, Answered, NewMessage, Posted};
use super::error::OrchestratorError;
use super::mailbox::{Ask, Report};
use super::question_error::QuestionError;
use crate::attempt::status::{ClosedQuestion, LiveStatus};
use crate::mission::id::{BossId, WorkerId};
use crate::mission::message::Author;
use crate::mission::question::Question;

/// Time limit for a supervisor to read an answer. It polls its inbox every second.
const TAKEN_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Returns the question that an answer is meant for, if the decision fits it.
pub(super) fn meant<'a>(
    worker: &WorkerId,
    status: &'a LiveStatus,
    request: &AnswerRequest,
) -> Result<&'a Question, QuestionError> {
    let open = || status.questions.iter().map(|open| &open.question);
    let ids = || open().map(|question| question.id.clone()).collect::<Vec<_>>();
    let worker = || worker.to_string();
    let found = match &request.question {
        Some(id) => open().find(|question| question.id == *id),
        None if status.questions.len() > 1 => return Err(QuestionError::Several { worker: worker(), open: ids() }),
        None => open().next(),
    };
    let Some(question) = found else {
        let closed = request.question.as_ref().and_then(|id| closed(status, id));
        return Err(match closed {
            Some(closed) => how_closed(worker(), closed),
            None => QuestionError::NotOpen { worker: worker(), question: request.question.clone(), open: ids() },
        });
    };
    question.verdict(&request.decision, None)?;
    Ok(question)
}

fn closed<'a>(status: &'a LiveStatus, id: &str) -> Option<&'a ClosedQuestion> {
    status.closed_questions.iter().rev().find(|closed| closed.question == id)
}

fn how_closed(worker: String, closed: &ClosedQuestion) -> QuestionError {
    let question = closed.question.clone();
    match &closed.decided {
        Some(decided) => {
            let (by, decision) = (decided.by.as_str(), decided.decision.clone());
            QuestionError::AlreadyAnswered { worker, question, by, decision }
        }
        None => QuestionError::Withdrawn { worker, question },
    }
}

/// Answers a question, and returns once the worker's CLI has the answer.
pub(super) async fn answer(
    actor: &ActorHandle,
    boss: &BossId,
    name: &str,
    request: AnswerRequest,
    by: Option<Author>,
) -> Result<Answered, OrchestratorError> {
    let (owner, name) = (boss.clone(), name.to_owned());
    let posted = actor.ask(|reply| Ask::Answer { boss: owner, name, request, by, reply }).await??;
    until_taken(actor, &posted).await?;
    // The worker must not hear the words of an answer that was refused.
    if let Some(message) = posted.message {
        let message = NewMessage { by, ..message };
        let (boss, name) = (boss.clone(), posted.worker.to_string());
        actor.ask(|reply| Ask::Message { boss, name, message, reply }).await??;
    }
    let status = actor.get(posted.worker.as_str()).await?.worker.status;
    Ok(Answered { worker_id: posted.worker, question: posted.question, message_id: posted.entry, status })
}

/// Waits until the supervisor has closed the question, by this answer or otherwise.
async fn until_taken(actor: &ActorHandle, posted: &Posted) -> Result<(), QuestionError> {
    let (worker, question) = (posted.worker.to_string(), posted.question.clone());
    let limit = Instant::now() + TAKEN_LIMIT;
    loop {
        let has_ended = posted.dir.outcome_path().exists();
        // After the end of the attempt, the file has its last state.
        let status = LiveStatus::read(&posted.dir).ok().flatten();
        if let Some(closed) = status.as_ref().and_then(|status| closed(status, &posted.question)) {
            let is_ours = closed.decided.as_ref().is_some_and(|decided| decided.entry == Some(posted.entry));
            let error = (!is_ours).then(|| how_closed(worker, closed));
            if let Some(status) = status {
                // The next status that this server shows must not be older than this answer.
                let report = Report::Status(Box::new(status));
                actor.send(Ask::Reported { worker: posted.worker.clone(), attempt: posted.attempt, report });
            }
            return error.map_or(Ok(()), Err);
        }
        if has_ended {
            return Err(QuestionError::Withdrawn { worker, question });
        }
        if Instant::now() > limit {
            return Err(QuestionError::Unconfirmed { worker, question });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
