//! One tool call, from what the journal knows of it to an answer that the server has taken.
//!
//! ```text
//!   journal: finished ──────────────────────────────────┐
//!            begun ── "interrupted, may have run" ──────┤
//!            nothing ── begin (disk, and console) ── run┴─► finish (disk) ──► post … ──► settle (disk)
//! ```
//!
//! Dropping the future kills a tool that runs; what was written down until then decides how the call goes on.

use std::sync::Arc;
use std::time::Duration;

use mcp_sandbox_tools::{CallError, ToolResult};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::access::{Access, Refusal};
use crate::calls::Call;
use crate::desk::{Desk, Desks};
use crate::journal::Standing;
use crate::skills;

/// No call runs longer, whatever time it asks for.
const LONGEST: Duration = Duration::from_secs(3600);
/// What a file tool, and a bash call that asks for no time, are given.
const USUAL: Duration = Duration::from_secs(150);
/// Pauses between two tries to post or to begin.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// Largest result in bytes of JSON; the server's limit of a body is 32 MiB.
const RESULT_BYTES: usize = 30 * 1024 * 1024;

const NEW_WORKSPACE: &str =
    "[this is a new workspace: files of earlier calls in this session are not here]";
const OTHER_WORKSPACE: &str = "[this is an earlier workspace of this session: files of calls that ran elsewhere are not here]";

/// Whether a call may go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It may.
    #[default]
    GoOn,
    /// The worker or the item is being stopped: end the tool and say so.
    Cancel,
    /// Nobody takes a result any more: end the tool, say nothing.
    Void,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEnd {
    /// The server has its result.
    Answered,
    /// The server refused the result for good.
    Refused,
    /// It takes no result.
    Voided,
    /// It did not start; it stays open.
    NotStarted,
    /// The credential does not let us act for this session: the lease must be gone.
    NoRight,
}

/// What a call is run with.
pub(crate) struct CallContext {
    pub(crate) access: Arc<Access>,
    pub(crate) desks: Arc<Desks>,
    pub(crate) desk: Arc<Mutex<Desk>>,
    pub(crate) wish: watch::Receiver<Wish>,
    /// Skills of the session, to be there before the first tool.
    pub(crate) skills: Arc<Vec<skills::Wanted>>,
    /// Why no tool is run for this session.
    pub(crate) refuse: Option<&'static str>,
    /// The last call that ran for the session, here or elsewhere.
    pub(crate) last_answered: Option<String>,
}

/// For the log: what became of a call.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: jiff::Timestamp,
    session: &'a str,
    work: &'a str,
    worker: &'a str,
    trace: &'a str,
    call: &'a str,
    tool: &'a str,
    outcome: &'static str,
    exit: Option<u8>,
    is_error: bool,
    bytes: usize,
    ms: u64,
}

/// A result and what is said about it in the log.
struct Outcome {
    result: ToolResult,
    what: &'static str,
    /// It says that files of earlier calls are not here.
    has_notice: bool,
}

impl Outcome {
    fn new(what: &'static str, result: ToolResult) -> Self {
        Self {
            result,
            what,
            has_notice: false,
        }
    }

    fn with_notice(mut self, text: &str) -> Self {
        let text = text.to_owned();
        let notice = mcp_sandbox_tools::Block::Text { text };
        self.result.content.insert(0, notice);
        self.has_notice = true;
        self
    }
}

/// Answers a call.
pub(crate) async fn answer(call: Call, mut context: CallContext) -> CallEnd {
    let started = Instant::now();
    let mut desk = context.desk.clone().lock_owned().await;
    let id = call.id.clone();
    let known = desk.disk(move |disk| disk.journal().standing(&id).cloned());
    let (event, outcome) = match known.await {
        Some(Standing::Finished { event }) => (event, None),
        known => {
            let outcome = match known {
                Some(Standing::Begun { .. }) => interrupted(),
                Some(_) => Outcome::new(
                    "refused before",
                    ToolResult::error("the result of this call was refused by the server"),
                ),
                None => match begin_and_run(&call, &mut context, &mut desk).await {
                    Ok(outcome) => outcome,
                    Err(end) => return end,
                },
            };
            // Whatever came of it says where the session is now: the next call is told nothing any more.
            let outcome = match notice(&context, &desk).await {
                Some(text) => outcome.with_notice(text),
                None => outcome,
            };
            let event = event_of(&call.id, &outcome.result);
            let (id, kept) = (call.id.clone(), event.clone());
            let finished = desk.disk(move |disk| disk.journal().finish(&id, &kept));
            match finished.await {
                // Its notice is posted, now or by the next worker.
                Ok(()) if outcome.has_notice => desk.settle_in().await,
                Ok(()) => {}
                // It is posted all the same; after a crash it counts as begun.
                Err(error) => warn!(%error, call = %call.id, "a result cannot be written down"),
            }
            (event, Some(outcome))
        }
    };
    let end = post(&call.id, &event, &mut context).await;
    if matches!(end, CallEnd::Answered | CallEnd::Refused | CallEnd::Voided) {
        settle(&call.id, &desk).await;
    }
    log(
        &call,
        &context,
        &desk,
        outcome.as_ref(),
        event.len(),
        started,
    )
    .await;
    end
}

/// Writes down that the call starts, here and at a console that keeps such notes, and runs it.
async fn begin_and_run(
    call: &Call,
    context: &mut CallContext,
    desk: &mut Desk,
) -> Result<Outcome, CallEnd> {
    if let Some(why) = context.refuse {
        return Ok(Outcome::new("refused", ToolResult::error(why)));
    }
    let tools = match prepare(context, desk).await {
        Ok(tools) => tools,
        Err(why) => {
            return Ok(Outcome::new("no sandbox", ToolResult::error(why)));
        }
    };
    match begin(call, context, desk).await {
        Begin::Now => {}
        Begin::Before => {
            desk.note_past();
            return Ok(interrupted());
        }
        Begin::Never(end) => return Err(end),
        Begin::NoDisk(error) => {
            return Ok(Outcome::new(
                "no journal",
                ToolResult::error(format!(
                    "the worker cannot write its journal, so the tool was not started: {error}"
                )),
            ));
        }
    }
    if notice(context, desk).await.is_none() {
        // Before the tool makes a file: killed after it, the next worker must not deny that file.
        desk.settle_in().await;
    }
    let limit = limit_of(&call.input);
    let ran = tokio::select! {
        ran = timeout(limit, tools.call(&call.tool, &call.input)) => ran,
        wish = changed(&mut context.wish) => {
            // The call was dropped, which kills it.
            if wish == Wish::Void {
                settle(&call.id, desk).await;
                return Err(CallEnd::Voided);
            }
            return Ok(Outcome::new(
                "cancelled",
                ToolResult::error("the call was cancelled: its worker was asked to stop"),
            ));
        }
    };
    let outcome = judged(ran, limit);
    if outcome.what == "lost" {
        desk.end_sandbox().await;
    }
    Ok(outcome)
}

/// What the agent has to know about the files that this call sees, unless they are those of the call before.
async fn notice(context: &CallContext, desk: &Desk) -> Option<&'static str> {
    if desk.is_fresh() {
        return desk
            .lacks_files(context.last_answered.is_some())
            .then_some(NEW_WORKSPACE);
    }
    if desk.has_past_elsewhere() {
        return Some(OTHER_WORKSPACE);
    }
    // The session was on another host meanwhile, and has come back, unless the last result was posted from here.
    let last = context.last_answered.clone()?;
    let id = last.clone();
    let standing = desk.disk(move |disk| disk.journal().standing(&id).cloned());
    match standing.await {
        Some(Standing::Settled) => None,
        // Killed around the post: where the same is taken once more, it was this one. Other platforms may refuse to
        // hear it twice, and nobody there answers for a worker that was killed.
        Some(Standing::Finished { event })
            if !context.access.keeps_begun() || context.access.send(&event).await.is_ok() =>
        {
            settle(&last, desk).await;
            None
        }
        _ => Some(OTHER_WORKSPACE),
    }
}

fn judged(
    ran: Result<Result<ToolResult, CallError>, tokio::time::error::Elapsed>,
    limit: Duration,
) -> Outcome {
    match ran {
        Ok(Ok(result)) => Outcome::new("done", result),
        Ok(Err(error)) => {
            let chain = mcp_diagnostics::telemetry::chain(&error).to_string();
            Outcome::new(
                "lost",
                ToolResult::error(format!(
                    "the call was lost, and may have had an effect: {chain}"
                )),
            )
        }
        Err(_) => Outcome::new(
            "timed out",
            ToolResult::error(format!(
                "the call was ended after {}s, the longest that one may take",
                limit.as_secs()
            )),
        ),
    }
}

/// The sandbox with the session's skills in it.
pub(crate) async fn prepare(
    context: &CallContext,
    desk: &mut Desk,
) -> Result<Arc<mcp_sandbox_tools::Toolset>, String> {
    let tools = context.desks.tools(desk).await.map_err(|error| {
        let chain = mcp_diagnostics::telemetry::chain(&error).to_string();
        warn!(session = context.access.session(), error = %chain, "no sandbox can be made");
        format!("no sandbox can be made for this call: {chain}")
    })?;
    for skill in context.skills.iter() {
        skills::bring(skill, &context.access, &tools, desk).await;
    }
    Ok(tools)
}

/// Whether the tool may start.
enum Begin {
    Now,
    /// Somebody began it before.
    Before,
    Never(CallEnd),
    /// The journal cannot be written, and why.
    NoDisk(std::io::Error),
}

/// Nothing is started unless both notes were taken.
async fn begin(call: &Call, context: &mut CallContext, desk: &Desk) -> Begin {
    let (id, tool) = (call.id.clone(), call.tool.clone());
    let ours = desk.disk(move |disk| disk.journal().begin(&id, &tool));
    let (ours, theirs) = tokio::join!(ours, begin_at_console(&call.id, context));
    match (ours, theirs) {
        (Ok(()), Begin::Now) => Begin::Now,
        // The console knows of an earlier try: so does the journal now.
        (Ok(()), Begin::Before) => Begin::Before,
        (Ok(()), never) => {
            let id = call.id.clone();
            let withdrawn = desk.disk(move |disk| disk.journal().withdraw(&id));
            if let Err(error) = withdrawn.await {
                warn!(%error, call = %call.id, "the journal cannot be written");
            }
            never
        }
        (Err(error), theirs) => {
            warn!(%error, call = %call.id, "the journal cannot be written: the tool is not started");
            match theirs {
                Begin::Never(end) => Begin::Never(end),
                _ => Begin::NoDisk(error),
            }
        }
    }
}

async fn begin_at_console(call: &str, context: &mut CallContext) -> Begin {
    if !context.access.keeps_begun() {
        return Begin::Now;
    }
    let mut pause = PAUSE.0;
    loop {
        let answer = tokio::select! {
            answer = context.access.begin(call) => answer,
            wish = changed(&mut context.wish) => return Begin::Never(not_started(wish)),
        };
        match answer {
            Ok(true) => return Begin::Before,
            Ok(false) => return Begin::Now,
            Err(Refusal::Later { after, why }) => {
                warn!(%call, error = why, "the console is out of reach: the tool does not start");
                pause = pause.max(after.unwrap_or_default()).min(PAUSE.1);
            }
            Err(refusal) => {
                warn!(%call, %refusal, "the console does not let the tool start");
                return Begin::Never(CallEnd::NoRight);
            }
        }
        tokio::select! {
            () = sleep(pause) => pause *= 2,
            wish = changed(&mut context.wish) => return Begin::Never(not_started(wish)),
        }
    }
}

fn not_started(wish: Wish) -> CallEnd {
    match wish {
        Wish::Void => CallEnd::Voided,
        Wish::Cancel | Wish::GoOn => CallEnd::NotStarted,
    }
}

/// Posts until the server has taken the result or refused it for good.
async fn post(call: &str, event: &str, context: &mut CallContext) -> CallEnd {
    let mut pause = PAUSE.0;
    loop {
        match context.access.send(event).await {
            Ok(()) => return CallEnd::Answered,
            Err(Refusal::Later { after, .. }) => {
                metrics::counter!("mcp_worker_posts_retried_total").increment(1);
                pause = pause.max(after.unwrap_or_default()).min(PAUSE.1);
            }
            Err(Refusal::Unauthorised(_)) => return CallEnd::NoRight,
            Err(refusal) => {
                warn!(%call, %refusal, "the server refused a result");
                return CallEnd::Refused;
            }
        }
        tokio::select! {
            () = sleep(pause) => pause *= 2,
            () = voided(&mut context.wish) => return CallEnd::Voided,
        }
    }
}

async fn settle(call: &str, desk: &Desk) {
    let id = call.to_owned();
    if let Err(error) = desk.disk(move |disk| disk.journal().settle(&id)).await {
        warn!(%error, %call, "the journal cannot be written");
    }
}

/// Waits until the call may not go on.
async fn changed(wish: &mut watch::Receiver<Wish>) -> Wish {
    match wish.wait_for(|wish| *wish != Wish::GoOn).await {
        Ok(wish) => *wish,
        Err(_) => Wish::Cancel,
    }
}

async fn voided(wish: &mut watch::Receiver<Wish>) {
    if wish.wait_for(|wish| *wish == Wish::Void).await.is_err() {
        std::future::pending().await
    }
}

/// A time that the call itself asks for is given to it, and some more to end by itself.
fn limit_of(input: &Value) -> Duration {
    let asked = input.get("timeout_ms").and_then(Value::as_u64);
    let asked = asked.map_or(USUAL, |ms| {
        Duration::from_millis(ms).saturating_add(Duration::from_secs(30))
    });
    asked.clamp(USUAL, LONGEST)
}

fn interrupted() -> Outcome {
    Outcome::new(
        "interrupted",
        ToolResult::error(
            "interrupted, may have run: the worker ended while this call was running, and it is not run again",
        ),
    )
}

/// The event that answers a call, as JSON text.
fn event_of(call: &str, result: &ToolResult) -> String {
    let event = |result: &ToolResult| {
        serde_json::json!({
            "type": "user.tool_result",
            "tool_use_id": call,
            "is_error": result.is_error,
            "content": result.content,
        })
        .to_string()
    };
    let text = event(result);
    if text.len() > RESULT_BYTES {
        return event(&ToolResult::error("the result is too large to be sent"));
    }
    text
}

/// One line for people, to this program's log and to the session's.
async fn log(
    call: &Call,
    context: &CallContext,
    desk: &Desk,
    outcome: Option<&Outcome>,
    bytes: usize,
    started: Instant,
) {
    let line = Line {
        at: jiff::Timestamp::now(),
        session: context.access.session(),
        work: context.access.work(),
        worker: context.access.worker(),
        trace: context.access.trace(),
        call: &call.id,
        tool: &call.tool,
        outcome: outcome.map_or("posted again", |outcome| outcome.what),
        exit: outcome.and_then(|outcome| outcome.result.exit),
        is_error: outcome.is_some_and(|outcome| outcome.result.is_error),
        bytes,
        ms: millis(started),
    };
    info!(
        session = line.session,
        work = line.work,
        worker = line.worker,
        trace = line.trace,
        call = line.call,
        tool = line.tool,
        outcome = line.outcome,
        exit = line.exit,
        is_error = line.is_error,
        bytes = line.bytes,
        ms = line.ms,
        "call"
    );
    let tool = call.tool.clone();
    metrics::counter!("mcp_worker_calls_total", "tool" => tool.clone(), "outcome" => line.outcome)
        .increment(1);
    metrics::histogram!("mcp_worker_call_seconds", "tool" => tool)
        .record(started.elapsed().as_secs_f64());
    if let Ok(text) = serde_json::to_string(&line) {
        desk.disk(move |disk| disk.log(&text)).await;
    }
}

/// Milliseconds since then, for logs.
pub(crate) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_has_its_time_within_bounds() {
        let limit = |input| limit_of(&input).as_secs();
        assert_eq!(limit(json!({})), 150);
        assert_eq!(limit(json!({"timeout_ms": 1})), 150);
        assert_eq!(limit(json!({"timeout_ms": 600_000})), 630);
        assert_eq!(limit(json!({"timeout_ms": u64::MAX})), 3600);
    }

    #[test]
    fn a_result_too_large_becomes_one_that_says_so() {
        let large = ToolResult::text("x".repeat(RESULT_BYTES));
        let event: Value = serde_json::from_str(&event_of("a", &large)).unwrap();
        assert_eq!(event["is_error"], true);
        assert_eq!(event["tool_use_id"], "a");
        let small: Value = serde_json::from_str(&event_of("a", &ToolResult::text(""))).unwrap();
        let expect = json!({"type": "user.tool_result", "tool_use_id": "a", "is_error": false,
            "content": [{"type": "text", "text": "(no output)"}]});
        assert_eq!(small, expect);
    }
}
