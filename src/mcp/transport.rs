//! JSON-RPC lines over a pair of pipes, for clients that do not follow the protocol exactly.
//!
//! It replaces the transport of the protocol library, in which a message before the session ends the server, a line
//! over the limit is dropped silently, and a repeated id runs a call twice. It also notifies the server at once when
//! the input ends. It does not know the tools.

use std::sync::Arc;
use std::{io, mem};

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorData, GetMeta, JsonRpcMessage, ProtocolVersion,
    RequestId, ServerJsonRpcMessage,
};
use rmcp::transport::Transport;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::in_flight::RequestsInFlight;
use crate::crash_point::{self, Point};

/// Maximum size in bytes of a line.
const MAX_LINE: usize = 16 * 1024 * 1024;

pub(super) struct Lines<R, W> {
    input: BufReader<R>,
    /// The beginning of the current line.
    line: Vec<u8>,
    /// The current line is over the limit, so the rest of it is dropped.
    is_too_long: bool,
    output: Arc<tokio::sync::Mutex<W>>,
    in_flight: RequestsInFlight,
    /// A request has chosen a protocol version.
    has_session: bool,
    /// Cancelled at the end of the input.
    closing: CancellationToken,
}

impl<R: AsyncRead + Unpin, W> Lines<R, W> {
    pub(super) fn new(input: R, output: W, in_flight: RequestsInFlight, closing: CancellationToken) -> Self {
        Self {
            input: BufReader::new(input),
            line: Vec::new(),
            is_too_long: false,
            output: Arc::new(tokio::sync::Mutex::new(output)),
            in_flight,
            has_session: false,
            closing,
        }
    }

    /// Reads the next line; `None` at the end of the input. A dropped future loses nothing, since the beginning of a
    /// line stays in `self.line`.
    async fn next_line(&mut self) -> Option<Result<Vec<u8>, ErrorReply>> {
        loop {
            let available = match self.input.fill_buf().await {
                Ok([]) => return None,
                Ok(available) => available,
                Err(error) => {
                    tracing::error!(%error, "cannot read from the client");
                    return None;
                }
            };
            let newline = available.iter().position(|byte| *byte == b'\n');
            let taken = newline.map_or(available.len(), |at| at + 1);
            let piece = &available[..newline.unwrap_or(taken)];
            if !self.is_too_long && self.line.len() + piece.len() <= MAX_LINE {
                self.line.extend_from_slice(piece);
            } else {
                self.is_too_long = true;
                self.line = Vec::new();
            }
            self.input.consume(taken);
            if newline.is_some() {
                let line = mem::take(&mut self.line);
                return Some(if mem::take(&mut self.is_too_long) { Err(ErrorReply::too_long()) } else { Ok(line) });
            }
        }
    }

    /// Returns the message in a line, if the session must handle it.
    fn read(&mut self, line: &[u8]) -> Result<Option<ClientJsonRpcMessage>, ErrorReply> {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        match serde_json::from_slice(line) {
            Ok(message) => Ok(self.admit(with_parsed_arguments(message, line))),
            Err(error) => ErrorReply::of(line, &error).map_or(Ok(None), Err),
        }
    }

    /// Filters out messages that the session must not see.
    fn admit(&mut self, message: ClientJsonRpcMessage) -> Option<ClientJsonRpcMessage> {
        match &message {
            JsonRpcMessage::Request(request) => {
                if !self.in_flight.begin(&request.id) {
                    // The client could not tell two answers apart, so the second call is not run.
                    tracing::warn!(id = %request.id, "ignoring a request with the id of a request in flight");
                    return None;
                }
                self.has_session |= begins_session(&request.request);
            }
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                    && !self.in_flight.cancel(id)
                {
                    tracing::debug!(%id, "ignoring a cancellation after the answer");
                    return None;
                }
            }
            _ => {}
        }
        let early = !self.has_session && !matches!(message, JsonRpcMessage::Request(_));
        if early {
            tracing::debug!("ignoring a message before the session");
        }
        (!early).then_some(message)
    }
}

/// Parses the arguments of a call that came as JSON text. Returns every other message unchanged.
fn with_parsed_arguments(message: ClientJsonRpcMessage, line: &[u8]) -> ClientJsonRpcMessage {
    let is_malformed_call = matches!(
        &message,
        JsonRpcMessage::Request(request)
            if matches!(&request.request, ClientRequest::CustomRequest(request) if request.method == "tools/call")
    );
    let parse = || {
        let mut message: Value = serde_json::from_slice(line).ok()?;
        let arguments = message.pointer_mut("/params/arguments")?;
        let parsed: Value = serde_json::from_str(arguments.as_str()?).ok()?;
        *arguments = Some(parsed).filter(Value::is_object)?;
        serde_json::from_value(message).ok()
    };
    is_malformed_call.then(parse).flatten().unwrap_or(message)
}

/// Returns whether the library accepts notifications after this request.
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

/// An error in place of an answer, for a line that the session does not see.
struct ErrorReply {
    id: Option<RequestId>,
    error: Box<ErrorData>,
}

impl ErrorReply {
    fn new(id: Option<RequestId>, error: ErrorData) -> Self {
        Self { id, error: Box::new(error) }
    }

    /// Refuses a line that is no message; `None` if it is to be ignored. A line without an id that is no JSON gets no
    /// answer, as in all implementations of the protocol: two programs could exchange errors forever.
    fn of(line: &[u8], error: &serde_json::Error) -> Option<Self> {
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(error) => return Self::of_unreadable(line, &error),
        };
        if value.is_array() {
            let why = "invalid request: batches are not part of this protocol, send one message per line";
            return Some(Self::new(None, ErrorData::invalid_request(why, None)));
        }
        let id = value.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
        let method = value.get("method").and_then(Value::as_str).filter(|_| value["jsonrpc"] == "2.0");
        let error = match (method, &id) {
            (Some(_), None) if value.get("id").is_none() => {
                tracing::debug!(%error, "ignoring an invalid notification");
                return None;
            }
            (Some(method), Some(_)) => {
                ErrorData::invalid_params(format!("malformed {method}: params must be an object"), None)
            }
            _ => ErrorData::invalid_request("invalid request: this is not a JSON-RPC 2.0 message", None),
        };
        Some(Self::new(id, error))
    }

    /// Refuses a request with JSON that cannot be held here: half a character (`"\ud800"`, which JavaScript writes),
    /// too large a number, too deep nesting. Its sender waits for an answer, and its id can still be read.
    fn of_unreadable(line: &[u8], error: &serde_json::Error) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            id: RequestId,
            #[serde(rename = "method")]
            _method: String,
        }
        let text = std::str::from_utf8(line).unwrap_or_default();
        let Ok(Envelope { id, .. }) = serde_json::from_str(text) else {
            tracing::debug!(%error, "ignoring a line that is not JSON");
            return None;
        };
        let why = format!(
            "parse error: {error}; send whole characters, numbers that fit into 64 bits, and no more than 100 levels of nesting"
        );
        Some(Self::new(Some(id), ErrorData::parse_error(why, None)))
    }

    fn too_long() -> Self {
        let max = MAX_LINE / 1024 / 1024;
        let why = format!(
            "the message is longer than {max} MiB and was not read: put long material into a file and name its path"
        );
        Self::new(None, ErrorData::invalid_request(why, None))
    }
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
            match line.and_then(|line| self.read(&line)) {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(refusal) => self.refuse(ServerJsonRpcMessage::error(*refusal.error, refusal.id)),
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.output.lock().await.shutdown().await
    }
}

impl<R, W: AsyncWrite + Unpin + Send + 'static> Lines<R, W> {
    /// Writes in a task of its own, since a read may be dropped at any moment, and with it half a line.
    fn refuse(&self, message: ServerJsonRpcMessage) {
        let output = Arc::clone(&self.output);
        tokio::spawn(async move {
            if let Err(error) = write_line(&output, &message).await {
                tracing::debug!(%error, "cannot refuse a message");
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

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy as _;

    use super::*;

    #[tokio::test]
    async fn overlong_line_takes_no_memory() {
        let input = io::Cursor::new(["a".repeat(2 * MAX_LINE).as_bytes(), b"\n{}\n"].concat());
        let mut lines = Lines::new(input, tokio::io::sink(), RequestsInFlight::default(), CancellationToken::new());
        assert!(lines.next_line().await.unwrap().is_err());
        assert_eq!(lines.line.capacity(), 0);
        assert!(lines.next_line().await.unwrap().is_ok_and(|line| line == b"{}"));
    }

    #[test]
    fn unreadable_request_is_refused_with_its_id() {
        for value in [r#""\ud800""#, "1e999", &"[".repeat(500)] {
            let close = "]".repeat(value.matches('[').count());
            let line = format!(
                r#"{{"method":"tools/call","params":{{"id":1,"x":{value}{close}}},"jsonrpc":"2.0","id":"a-9"}}"#
            );
            let error = serde_json::from_str::<Value>(&line).unwrap_err();
            let refusal = ErrorReply::of(line.as_bytes(), &error).unwrap();
            assert_eq!(refusal.id, Some(RequestId::String("a-9".into())), "{line}");
        }
        assert!(ErrorReply::of(b"{\"id\": 1, ", &serde_json::from_str::<Value>("{").unwrap_err()).is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_the_end(
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
                let mut lines = Lines::new(input, tokio::io::sink(), RequestsInFlight::default(), CancellationToken::new());
                while lines.receive().await.is_some() {}
            });
        }
    }
}
