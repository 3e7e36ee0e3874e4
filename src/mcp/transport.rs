//! JSON-RPC lines over a pair of pipes, for clients that do not follow the protocol exactly.
//!
//! It replaces the protocol library's own transport and closes its gaps. There, a message other than a request before
//! the session would end the server. A line over the limit would be dropped silently. A repeated id would run a call
//! twice. It also notifies the rest of the server at once when the input has ended. It does not depend on any tools.

use std::io;
use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorData, GetMeta, JsonRpcMessage, ProtocolVersion,
    RequestId, ServerJsonRpcMessage,
};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::in_flight::InFlight;
use crate::crash_point::{self, Point};

/// Longest line that is taken in, in bytes.
pub(super) const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// How much of the beginning and of the end of a longer one is kept, to find its id in.
const KEPT: usize = 4 * 1024;

pub(super) struct Lines<R, W> {
    input: BufReader<R>,
    line: PartialLine,
    output: Arc<tokio::sync::Mutex<W>>,
    in_flight: InFlight,
    /// A request has settled on a protocol version.
    begun: bool,
    /// Cancelled when the input has ended.
    closing: CancellationToken,
}

impl<R: AsyncRead + Unpin, W> Lines<R, W> {
    pub(super) fn new(input: R, output: W, in_flight: InFlight, closing: CancellationToken) -> Self {
        Self {
            input: BufReader::new(input),
            line: PartialLine::default(),
            output: Arc::new(tokio::sync::Mutex::new(output)),
            in_flight,
            begun: false,
            closing,
        }
    }

    /// Reads on until a line is complete; `None` at the end of the input. What was read stays in `self.line` when the
    /// future is dropped.
    async fn next_line(&mut self) -> Option<Line> {
        loop {
            let available = match self.input.fill_buf().await {
                Ok([]) => return None,
                Ok(available) => available,
                Err(error) => {
                    tracing::error!(%error, "could not read from the client");
                    return None;
                }
            };
            let newline = available.iter().position(|byte| *byte == b'\n');
            let taken = newline.map_or(available.len(), |at| at + 1);
            self.line.push(&available[..newline.unwrap_or(taken)]);
            self.input.consume(taken);
            if newline.is_some() {
                return Some(self.line.take());
            }
        }
    }

    /// What the session shall hear of this line, if anything.
    fn read(&mut self, line: &[u8]) -> Result<Option<ClientJsonRpcMessage>, Box<Malformed>> {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let message = match serde_json::from_slice(line) {
            Ok(message) => with_arguments_read(message, line),
            Err(error) => return malformed(line, &error).map_or(Ok(None), |malformed| Err(Box::new(malformed))),
        };
        Ok(self.admit(message))
    }

    /// Filters out messages that the session must not see.
    fn admit(&mut self, message: ClientJsonRpcMessage) -> Option<ClientJsonRpcMessage> {
        match &message {
            JsonRpcMessage::Request(request) => {
                if !self.in_flight.begin(&request.id) {
                    // Its answer will be taken for the first one's, so there shall be one call and one answer.
                    tracing::warn!(id = %request.id, "a request repeats an id that is in flight; ignoring it");
                    return None;
                }
                self.begun |= begins_session(&request.request);
            }
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                    && !self.in_flight.cancel(id)
                {
                    tracing::debug!(%id, "ignoring a cancellation that comes after the answer");
                    return None;
                }
            }
            _ => {}
        }
        let early = !self.begun && !matches!(message, JsonRpcMessage::Request(_));
        if early {
            tracing::debug!("ignoring a message that came before the session began");
        }
        (!early).then_some(message)
    }
}

/// Parses the arguments of a call that came as JSON text. Returns every other message unchanged.
fn with_arguments_read(message: ClientJsonRpcMessage, line: &[u8]) -> ClientJsonRpcMessage {
    let is_malformed_call = matches!(
        &message,
        JsonRpcMessage::Request(request)
            if matches!(&request.request, ClientRequest::CustomRequest(request) if request.method == "tools/call")
    );
    let read = || {
        let mut message: Value = serde_json::from_slice(line).ok()?;
        let arguments = message.pointer_mut("/params/arguments")?;
        let said: Value = serde_json::from_str(arguments.as_str()?).ok()?;
        *arguments = Some(said).filter(Value::is_object)?;
        serde_json::from_value(message).ok()
    };
    is_malformed_call.then(read).flatten().unwrap_or(message)
}

/// Returns whether the library leaves its opening phase with this request. From then on it accepts notifications.
fn begins_session(request: &ClientRequest) -> bool {
    match request {
        ClientRequest::InitializeRequest(_) => true,
        ClientRequest::DiscoverRequest(_) | ClientRequest::PingRequest(_) => false,
        request => {
            let meta = request.get_meta();
            let complete = meta.missing_required_keys(&ProtocolVersion::V_2026_07_28).is_empty();
            complete
                && meta.protocol_version().is_some_and(|version| ProtocolVersion::KNOWN_VERSIONS.contains(&version))
        }
    }
}

/// JSON that is no message, and the answer to it.
struct Malformed {
    id: Option<RequestId>,
    error: ErrorData,
}

/// `None`: to be ignored. What is no JSON gets no answer, as in all implementations of the protocol: there is no id to
/// answer to, and two programs could go on telling each other for ever.
fn malformed(line: &[u8], error: &serde_json::Error) -> Option<Malformed> {
    let value = match serde_json::from_slice::<Value>(line) {
        Ok(value) => value,
        Err(wrong) => return unreadable(line, &wrong),
    };
    if value.is_array() {
        let why = "invalid request: batches are not part of this protocol, send one message a line";
        return Some(Malformed { id: None, error: ErrorData::invalid_request(why, None) });
    }
    let id = value.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
    let method = value.get("method").and_then(Value::as_str).filter(|_| value["jsonrpc"] == "2.0");
    let error = match (method, &id) {
        (Some(_), None) if value.get("id").is_none() => {
            tracing::debug!(%error, "ignoring a notification that makes no sense");
            return None;
        }
        (Some(method), Some(_)) => {
            ErrorData::invalid_params(format!("{method} was sent wrongly: params must be an object"), None)
        }
        _ => ErrorData::invalid_request("invalid request: this is no JSON-RPC 2.0 message", None),
    };
    Some(Malformed { id, error })
}

/// JSON as other programs write it, and more than can be held here: half a character (`"\\ud800"`, which JavaScript
/// writes), a number without end, nesting without end. Whoever sent such a request waits for its answer.
fn unreadable(line: &[u8], wrong: &serde_json::Error) -> Option<Malformed> {
    let text = std::str::from_utf8(line).ok().filter(|text| text.contains("\"method\""));
    match text.and_then(|text| id_in(text.as_bytes(), text.as_bytes())) {
        Some(id) => {
            let why = format!(
                "parse error: {wrong}; send whole characters, numbers that fit into 64 bits, and no more than 100 levels of nesting"
            );
            Some(Malformed { id: Some(id), error: ErrorData::parse_error(why, None) })
        }
        None => {
            tracing::debug!(error = %wrong, "ignoring a line that is not JSON");
            None
        }
    }
}

fn too_long(id: RequestId) -> Malformed {
    let most = LONGEST_LINE / 1024 / 1024;
    let why = format!(
        "the message is longer than {most} MiB and was not read: put long material into a file and name its path"
    );
    Malformed { id: Some(id), error: ErrorData::invalid_request(why, None) }
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    type Error = io::Error;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let answered = match &message {
            JsonRpcMessage::Response(response) => Some(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref(),
            _ => None,
        };
        if let Some(id) = answered {
            self.in_flight.end(id);
        }
        let output = Arc::clone(&self.output);
        async move {
            let written = write_line(&output, &message).await;
            crash_point::at(Point::AnswerWritten);
            written
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            let Some(line) = self.next_line().await else {
                self.closing.cancel();
                return None;
            };
            let refused = match line {
                Line::Whole(line) => match self.read(&line) {
                    Ok(Some(message)) => return Some(message),
                    Ok(None) => continue,
                    Err(malformed) => malformed,
                },
                Line::TooLong { head, tail } => match id_in(&head, &tail) {
                    Some(id) => Box::new(too_long(id)),
                    None => continue,
                },
            };
            self.refuse(ServerJsonRpcMessage::error(refused.error, refused.id));
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.output.lock().await.shutdown().await
    }
}

impl<R, W: AsyncWrite + Unpin + Send + 'static> Lines<R, W> {
    /// Written beside the reading, which may be dropped at any moment: a client that does not read cannot lose it half.
    fn refuse(&self, message: ServerJsonRpcMessage) {
        let output = Arc::clone(&self.output);
        tokio::spawn(async move {
            if let Err(error) = write_line(&output, &message).await {
                tracing::debug!(%error, "could not answer a malformed message");
            }
        });
    }
}

async fn write_line<W: AsyncWrite + Unpin>(
    output: &tokio::sync::Mutex<W>,
    message: &ServerJsonRpcMessage,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut output = output.lock().await;
    output.write_all(&line).await?;
    output.flush().await
}

enum Line {
    Whole(Vec<u8>),
    TooLong { head: Vec<u8>, tail: Vec<u8> },
}

/// A line while it comes in. Of one that is too long, only both ends are kept.
#[derive(Default)]
struct PartialLine {
    bytes: Vec<u8>,
    /// The end of a line that is too long; `bytes` is its beginning then.
    tail: Option<Vec<u8>>,
}

impl PartialLine {
    fn push(&mut self, more: &[u8]) {
        if self.tail.is_none() && self.bytes.len() + more.len() <= LONGEST_LINE {
            return self.bytes.extend_from_slice(more);
        }
        let tail = self.tail.get_or_insert_with(|| {
            let tail = self.bytes[self.bytes.len().saturating_sub(KEPT)..].to_vec();
            self.bytes.truncate(KEPT);
            self.bytes.shrink_to_fit();
            tail
        });
        tail.extend_from_slice(&more[more.len().saturating_sub(KEPT)..]);
        tail.drain(..tail.len().saturating_sub(KEPT));
    }

    fn take(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.bytes);
        match self.tail.take() {
            Some(tail) => Line::TooLong { head: bytes, tail },
            None => Line::Whole(bytes),
        }
    }
}

const ID_KEY: &[u8] = b"\"id\"";

/// The id of a message of which only both ends are known: it stands near one of them, beside the long `params`.
fn id_in(head: &[u8], tail: &[u8]) -> Option<RequestId> {
    let at = |text: &[u8]| text.windows(ID_KEY.len()).position(|window| window == ID_KEY);
    let at_last = |text: &[u8]| text.windows(ID_KEY.len()).rposition(|window| window == ID_KEY);
    let in_head = at(head).and_then(|at| {
        // It is the message's own if what stands before it is an object that only wants its brace.
        let before = head[..at].trim_ascii_end();
        let before = before.strip_suffix(b",").unwrap_or(before);
        serde_json::from_slice::<serde_json::Map<String, Value>>(&[before, b"}"].concat()).ok()?;
        let value = head[at + ID_KEY.len()..].trim_ascii_start().strip_prefix(b":")?;
        serde_json::Deserializer::from_slice(value).into_iter::<RequestId>().next()?.ok()
    });
    in_head.or_else(|| {
        let rest = &tail[at_last(tail)?..];
        let object: serde_json::Map<String, Value> = serde_json::from_slice(&[b"{", rest].concat()).ok()?;
        serde_json::from_value(object.get("id")?.clone()).ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy as _;

    use super::*;

    #[test]
    fn the_id_of_a_long_message_is_found_at_either_end() {
        let cases: [(&str, &str, Option<RequestId>); 6] = [
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"x":"aaa"#,
                "aaa\"}}",
                Some(RequestId::Number(7)),
            ),
            (
                r#"{"method":"tools/call","params":{"id":1,"x":"aaa"#,
                r#"aaa"},"jsonrpc":"2.0","id":"a-9"}"#,
                Some(RequestId::String("a-9".into())),
            ),
            (r#"{"method":"tools/call","params":{"x":"aaa"#, r#"aaa","id":5},"jsonrpc":"2.0"}"#, None),
            (r#"{"method":"x","params":{"text":"say \"id\":3 aaa"#, r#"aaa\"id\":4"}}"#, None),
            (r#"{"id":  12 ,"params":["#, "]}\r", Some(RequestId::Number(12))),
            ("aaaa", "aaaa", None),
        ];
        for (head, tail, id) in cases {
            assert_eq!(id_in(head.as_bytes(), tail.as_bytes()), id, "{head} … {tail}");
        }
    }

    #[test]
    fn a_long_line_costs_little_memory_and_keeps_its_ends() {
        let mut line = PartialLine::default();
        let chunk = vec![b'a'; 1024 * 1024];
        line.push(b"start");
        (0..40).for_each(|_| line.push(&chunk));
        line.push(b"end");
        assert!(line.bytes.capacity() <= 2 * KEPT);
        let Line::TooLong { head, tail } = line.take() else { panic!("40 MiB were taken in") };
        assert!(head.starts_with(b"starta") && tail.ends_with(b"aend"));
        assert!(head.len() <= KEPT && tail.len() <= KEPT);
        line.push(b"{}");
        assert!(matches!(line.take(), Line::Whole(whole) if whole == b"{}"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(
            pieces in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..20),
                    proptest::sample::select(vec![
                        "{\"jsonrpc\":\"2.0\",", "\"id\":", "1", "1e999", "\"a\"", "\"method\":", "\"ping\"", "\"tools/call\"",
                        ",", "\"params\":{", "\"params\":[", "}", "]", "\n", "null", "\"\\ud800\"", "\"result\":{}", "\u{feff}", "[[[[",
                    ]).prop_map(|word| word.as_bytes().to_vec()),
                ],
                0..40,
            )
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let input = io::Cursor::new(pieces.concat());
                let mut lines = Lines::new(input, tokio::io::sink(), InFlight::default(), CancellationToken::new());
                while lines.receive().await.is_some() {}
            });
        }
    }
}
