//! Prompts that a client shows its user, mostly as commands: what users ask for first, and a review of the work.

use rmcp::model::{ErrorData, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};

use super::arguments::{self, ArgumentError};

const ORCHESTRATE: &str = "orchestrate";
const RACE: &str = "race";
const CONTINUE: &str = "continue";
const REVIEW: &str = "review-workers";
/// Maximum size in bytes of a goal.
const GOAL: usize = 32 * 1024;

const LOOP: &str = "\
Lead worker agents to reach this goal. Use the tools of orchestrator-boss, and its skill if you have it.

1. get_backend_status: check which agent CLIs can work here.
2. Split the goal into missions that can be done and checked independently: goal, files, constraints, how to check. Give \
each a verify_command. Use depends_on for missions that build on others.
3. batch_create_workers with all of them.
4. wait_for_any_worker, and follow the next_step of each settled worker: integrate_worker if it is completed and \
verified, otherwise retry_worker with feedback or another backend; send_message_to_worker if it asks a question. Then \
wait again, until no worker is running or queued.
5. Check the result as a whole, and report to the user what was done, what was not, and why.

Do not do the work yourself, and do not poll.

The goal:
";

const RACE_TEXT: &str = "\
Race several worker agents on this one task. Use the tools of orchestrator-boss, and its skill if you have it.

1. get_backend_status: check which agent CLIs can work here. With only one, race its models or efforts.
2. Write one prompt: goal, files, constraints, how to check. Find the verify_command that decides who wins.
3. batch_create_workers with race true: two or three missions with the same prompt and verify_command, each with another \
backend or model.
4. wait_for_any_worker until there is a winner: the others are cancelled, and their work is kept. If all fail, compare \
their outcomes before you write a better prompt.
5. get_worker_status of the winner, with include [\"diff\"], then integrate_worker. Report to the user who won, and why \
the others did not.

Do not do the work yourself, and do not poll.

The task:
";

const CONTINUE_TEXT: &str = "\
Go on with the worker agents of orchestrator-boss after a restart. Workers keep running while you are away, and nothing \
that ended is lost.

1. list_worker_missions: see which are running, queued and settled. If there are none of yours, list them with scope \
\"all\", and ask the user before you act on those of another session.
2. wait_for_any_worker: it returns at once what has settled meanwhile.
3. Follow the next_step of each settled worker: integrate_worker if it is completed and verified, otherwise \
retry_worker; send_message_to_worker if it asks a question. Do not create a worker for a task that already has one.
4. Then wait again, until no worker is running or queued. Report to the user what was done, what was not, and why.

Do not do the work yourself, and do not poll.";

const REVIEW_TEXT: &str = "\
Review the worker agents of orchestrator-boss. Change nothing before the user agrees.

1. list_worker_missions: see which are running, queued and settled.
2. get_worker_status, with include [\"diff\"], for each that has settled and is not integrated. Trust its outcome \
(run, verification, changes), not its final message.
3. Report one line for each to the user: its purpose, its result, whether verification passed, and the next step you \
suggest (integrate_worker, retry_worker and its feedback, remove_worktree, nothing). Start with blocked and stalled ones.";

pub(super) fn list() -> Vec<Prompt> {
    let argument = |what| vec![PromptArgument::new("goal").with_description(what).with_required(true)];
    let (goal, task) = (argument("The goal, in a few sentences"), argument("The task, in a few sentences"));
    vec![
        Prompt::new(ORCHESTRATE, Some("Reach a goal with worker agents: split, start, wait, merge"), Some(goal)),
        Prompt::new(RACE, Some("Race several worker agents on one task; the first verified one wins"), Some(task)),
        Prompt::new(CONTINUE, Some("Go on with your worker agents after a restart"), None),
        Prompt::new(REVIEW, Some("Review the worker agents and their work, and suggest next steps"), None),
    ]
}

pub(super) fn get(name: &str, arguments: Option<JsonObject>) -> Result<GetPromptResult, ErrorData> {
    let text = match name {
        ORCHESTRATE => format!("{LOOP}{}", goal(arguments)?),
        RACE => format!("{RACE_TEXT}{}", goal(arguments)?),
        CONTINUE => CONTINUE_TEXT.to_owned(),
        REVIEW => REVIEW_TEXT.to_owned(),
        _ => {
            let name: String = name.chars().take(80).collect();
            let why = format!(
                "there is no prompt {name:?}; there are {ORCHESTRATE} and {RACE} (argument goal), {CONTINUE} and {REVIEW}"
            );
            return Err(ErrorData::invalid_params(why, None));
        }
    };
    Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]))
}

fn goal(arguments: Option<JsonObject>) -> Result<String, ErrorData> {
    let goal = arguments.as_ref().and_then(|arguments| arguments.get("goal")).and_then(|goal| goal.as_str());
    let goal = goal.ok_or(ArgumentError::Missing { field: "goal" });
    let goal = goal.and_then(|goal| arguments::text("goal", goal.to_owned(), GOAL));
    goal.map_err(|error| ErrorData::invalid_params(error.to_string(), None))
}
