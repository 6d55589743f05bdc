//! `ps`, `logs` and `stop`: asks the workers of this host over their sockets.

use anyhow::Context as _;
use mcp_sandbox_worker::{ControlAnswer, ControlRequest, SessionRow, WorkerConfig, ask_workers};

use crate::args::SocketArgs;
use crate::compose;

/// No worker knows the session, or none answers.
const EXIT_UNKNOWN: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Lists sessions; the result is the exit code.
pub(crate) async fn ps(args: SocketArgs) -> u8 {
    let answers = match ask(&args, &ControlRequest::Ps).await {
        Ok(answers) => answers,
        Err(code) => return code,
    };
    let rows = answers.into_iter().flat_map(|(process, answer)| {
        let rows = match answer {
            ControlAnswer::Sessions { rows } => rows,
            _ => Vec::new(),
        };
        rows.into_iter().map(move |row| (process, row))
    });
    if args.json {
        for (process, row) in rows {
            let mut object = serde_json::json!(row);
            object["process"] = process.into();
            println!("{object}");
        }
    } else {
        print!("{}", table(rows.collect()));
    }
    0
}

/// Prints a session's log; the result is the exit code.
pub(crate) async fn logs(session: String, args: SocketArgs) -> u8 {
    let request = ControlRequest::Logs {
        session: session.clone(),
    };
    let answers = match ask(&args, &request).await {
        Ok(answers) => answers,
        Err(code) => return code,
    };
    // Workers that share a folder know the same.
    let lines = answers.into_iter().find_map(|(_, answer)| match answer {
        ControlAnswer::Log { lines } => Some(lines),
        _ => None,
    });
    match lines {
        Some(lines) => {
            print!("{lines}");
            0
        }
        None => unknown(&session),
    }
}

/// Ends a session; the result is the exit code.
pub(crate) async fn stop(session: String, args: SocketArgs) -> u8 {
    let request = ControlRequest::Stop {
        session: session.clone(),
    };
    match ask(&args, &request).await {
        Ok(answers)
            if answers
                .iter()
                .any(|(_, answer)| *answer == ControlAnswer::Stopping) =>
        {
            0
        }
        Ok(_) => unknown(&session),
        Err(code) => code,
    }
}

async fn ask(args: &SocketArgs, request: &ControlRequest) -> Result<Vec<(u32, ControlAnswer)>, u8> {
    let asked = async {
        let state = compose::state_dir(args.workdir.as_deref())?;
        let folder = WorkerConfig::sockets(&compose::worker_folder(&state));
        let hint = || {
            format!(
                "no worker has run with --workdir {}, or it is another user's: name the workers' --workdir",
                state.display()
            )
        };
        ask_workers(&folder, request).await.with_context(hint)
    };
    match asked.await {
        Ok(answers) if answers.is_empty() => {
            eprintln!("mcp-sandbox: no worker of this --workdir answers");
            Err(EXIT_UNKNOWN)
        }
        Ok(answers) => Ok(answers),
        Err(error) => {
            eprintln!("mcp-sandbox: {error:#}");
            Err(EXIT_USAGE)
        }
    }
}

fn unknown(session: &str) -> u8 {
    eprintln!("mcp-sandbox: no worker of this --workdir has the session {session}");
    EXIT_UNKNOWN
}

fn table(rows: Vec<(u32, SessionRow)>) -> String {
    let mut lines = vec![
        [
            "SESSION", "STATE", "TOOL", "CALLS", "SINCE", "WORK", "PROCESS",
        ]
        .map(str::to_owned),
    ];
    lines.extend(rows.into_iter().map(|(process, row)| {
        [
            row.session,
            row.state.as_str().to_owned(),
            row.tool.unwrap_or_else(|| "-".to_owned()),
            row.calls.to_string(),
            format!("{:.0}", row.since),
            row.work.unwrap_or_else(|| "-".to_owned()),
            process.to_string(),
        ]
    }));
    let mut widths = [0; 7];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let lines = lines.iter().map(|line| {
        let cells = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    });
    lines.collect()
}
