//! Writes answers as each provider's stream, and errors as each provider's body.

use serde_json::{Value, json};

use super::conversation::Dialect;
use super::script::Failure;
use super::tools::{Input, ToolCall};

/// The reported tokens of every answer, by which tests can count answers.
pub const INPUT_TOKENS: u64 = 1000;
pub const OUTPUT_TOKENS: u64 = 50;

/// An answer of the model: text (may be empty), and optionally one tool call.
pub struct Spoken<'a> {
    pub model: &'a str,
    /// Part of the ids, unique to this answer.
    pub serial: usize,
    pub text: &'a str,
    pub call: Option<&'a ToolCall>,
}

/// Returns the whole body of a `text/event-stream` answer.
pub fn stream(dialect: Dialect, spoken: &Spoken) -> String {
    match dialect {
        Dialect::Anthropic => named_events(&anthropic_events(spoken)),
        Dialect::Responses => named_events(&responses_events(spoken)),
        Dialect::Gemini => format!("data: {}\n\n", gemini_answer(spoken)),
        Dialect::Chat => {
            chat_chunks(spoken).iter().map(|chunk| format!("data: {chunk}\n\n")).collect::<String>()
                + "data: [DONE]\n\n"
        }
    }
}

/// Returns the whole body of an answer to a request without streaming.
pub fn whole(dialect: Dialect, spoken: &Spoken) -> Value {
    match dialect {
        Dialect::Gemini => gemini_answer(spoken),
        Dialect::Anthropic => json!({
            "id": format!("msg_{}", spoken.serial), "type": "message", "role": "assistant", "model": spoken.model,
            "content": [{"type": "text", "text": spoken.text}], "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
        }),
        Dialect::Chat => json!({
            "id": format!("chatcmpl-{}", spoken.serial), "object": "chat.completion", "created": 0, "model": spoken.model,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": spoken.text}}],
            "usage": chat_usage(),
        }),
        Dialect::Responses => {
            json!({"id": format!("resp_{}", spoken.serial), "status": "completed", "output": []})
        }
    }
}

pub fn error_body(dialect: Dialect, failure: &Failure) -> Value {
    let (anthropic, openai, google) = match failure.status {
        401 => ("authentication_error", "invalid_api_key", "UNAUTHENTICATED"),
        403 => ("permission_error", "permission_denied", "PERMISSION_DENIED"),
        404 => ("not_found_error", "model_not_found", "NOT_FOUND"),
        429 => ("rate_limit_error", "rate_limit_exceeded", "RESOURCE_EXHAUSTED"),
        _ => ("api_error", "server_error", "INTERNAL"),
    };
    let word = |usual: &str| failure.kind.clone().unwrap_or_else(|| usual.to_owned());
    let message = match (failure.status, dialect) {
        // Codex and Qwen Code report only the message, so it must be the real one.
        (404, Dialect::Responses | Dialect::Chat) => {
            "The model `scripted` does not exist or you do not have access to it.".to_owned()
        }
        (404, Dialect::Gemini) => "models/scripted is not found for API version v1beta.".to_owned(),
        (status, _) => format!("scripted failure {status}"),
    };
    match dialect {
        Dialect::Anthropic => {
            json!({"type": "error", "error": {"type": word(anthropic), "message": message}})
        }
        Dialect::Gemini => {
            json!({"error": {"code": failure.status, "message": message, "status": word(google)}})
        }
        Dialect::Responses | Dialect::Chat => {
            json!({"error": {"message": message, "type": word(openai), "code": word(openai), "param": null}})
        }
    }
}

/// Formats events whose `type` is also the name of the event.
fn named_events(events: &[Value]) -> String {
    let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(event).collect()
}

fn anthropic_events(spoken: &Spoken) -> Vec<Value> {
    let usage = json!({"input_tokens": INPUT_TOKENS, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1});
    let mut events = vec![json!({"type": "message_start", "message": {
        "id": format!("msg_{}", spoken.serial), "type": "message", "role": "assistant", "model": spoken.model,
        "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage,
    }})];
    let mut index = 0;
    let mut block = |start: Value, delta: Value| {
        events.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        events.push(json!({"type": "content_block_stop", "index": index}));
        index += 1;
    };
    if !spoken.text.is_empty() {
        block(json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": spoken.text}));
    }
    if let Some(call) = spoken.call {
        let start =
            json!({"type": "tool_use", "id": format!("toolu_{}", spoken.serial), "name": call.name, "input": {}});
        block(start, json!({"type": "input_json_delta", "partial_json": input_as_text(call)}));
    }
    let stop_reason = if spoken.call.is_some() { "tool_use" } else { "end_turn" };
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": stop_reason, "stop_sequence": null},
        "usage": {"output_tokens": OUTPUT_TOKENS}}));
    events.push(json!({"type": "message_stop"}));
    events
}

fn responses_events(spoken: &Spoken) -> Vec<Value> {
    let id = format!("resp_{}", spoken.serial);
    let mut items = Vec::new();
    if !spoken.text.is_empty() {
        items.push(json!({"type": "message", "role": "assistant", "id": format!("msg_{}", spoken.serial), "status": "completed",
            "content": [{"type": "output_text", "text": spoken.text, "annotations": []}]}));
    }
    if let Some(call) = spoken.call {
        let (kind, field) = match call.input {
            Input::Json(_) => ("function_call", "arguments"),
            Input::Freeform(_) => ("custom_tool_call", "input"),
        };
        let mut item = json!({"type": kind, "id": format!("item_{}", spoken.serial), "call_id": format!("call_{}", spoken.serial),
            "name": call.name, field: input_as_text(call), "status": "completed"});
        // Codex finds the tools of an MCP server only by the server's namespace.
        if let Some((namespace, name)) = call.name.rsplit_once("__") {
            item["namespace"] = namespace.into();
            item["name"] = name.into();
        }
        items.push(item);
    }
    let mut events = vec![json!({"type": "response.created", "response": {"id": id, "status": "in_progress"}})];
    for (index, item) in items.iter().enumerate() {
        events.push(json!({"type": "response.output_item.added", "output_index": index, "item": item}));
        events.push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }
    events.push(
        json!({"type": "response.completed", "response": {"id": id, "status": "completed", "output": items, "usage": {
            "input_tokens": INPUT_TOKENS, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": OUTPUT_TOKENS, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }}}),
    );
    events
}

fn gemini_answer(spoken: &Spoken) -> Value {
    let mut parts = Vec::new();
    if !spoken.text.is_empty() {
        parts.push(json!({"text": spoken.text}));
    }
    if let Some(ToolCall { name, input: Input::Json(arguments) }) = spoken.call {
        parts.push(json!({"functionCall": {"name": name, "args": arguments}}));
    }
    json!({
        "candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": INPUT_TOKENS, "candidatesTokenCount": OUTPUT_TOKENS, "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS},
        "modelVersion": spoken.model, "responseId": format!("resp_{}", spoken.serial),
    })
}

fn chat_chunks(spoken: &Spoken) -> Vec<Value> {
    let chunk = |choices: Value, usage: Value| {
        json!({"id": format!("chatcmpl-{}", spoken.serial), "object": "chat.completion.chunk", "created": 0,
            "model": spoken.model, "choices": choices, "usage": usage})
    };
    let delta = |delta: Value| chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null);
    let mut chunks = vec![delta(json!({"role": "assistant", "content": spoken.text}))];
    if let Some(call) = spoken.call {
        chunks.push(delta(
            json!({"tool_calls": [{"index": 0, "id": format!("call_{}", spoken.serial), "type": "function",
            "function": {"name": call.name, "arguments": input_as_text(call)}}]}),
        ));
    }
    let reason = if spoken.call.is_some() { "tool_calls" } else { "stop" };
    chunks.push(chunk(json!([{"index": 0, "delta": {}, "finish_reason": reason}]), Value::Null));
    chunks.push(chunk(json!([]), chat_usage()));
    chunks
}

fn chat_usage() -> Value {
    json!({"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS})
}

fn input_as_text(call: &ToolCall) -> String {
    match &call.input {
        Input::Json(arguments) => arguments.to_string(),
        Input::Freeform(text) => text.clone(),
    }
}
