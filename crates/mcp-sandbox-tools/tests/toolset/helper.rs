//! How file tools get inside where nothing but `exec` and `put` is there.

use std::sync::Arc;

use bytes::Bytes;
use mcp_sandbox_executor::{FileHelper, Sandbox};
use mcp_sandbox_tools::{CallError, Toolset};
use serde_json::json;

use crate::local::{Agent, Local};

/// Stands for the static program: shows what it was asked, and how.
const PROGRAM: &str = "#!/bin/sh
if [ $# = 2 ]; then how=file; read -r line < \"$2\"; rm \"$2\"; else how=input; read -r line; fi
case $line in *'\"file_path\":\"die\"'*) kill -9 $$;; *'\"file_path\":\"x\"'*) ;; *) how=none;; esac
[ \"$1\" = files ] && echo '{\"content\":[{\"type\":\"text\",\"text\":\"'$how'\"}],\"is_error\":false}'
";

fn tools(local: &Arc<Local>) -> Toolset {
    let sandbox: Arc<dyn Sandbox> = Arc::<Local>::clone(local);
    Toolset::new(sandbox, FileHelper::Upload).with_helper(Bytes::from_static(PROGRAM.as_bytes()))
}

#[tokio::test]
async fn the_helper_is_uploaded_and_asked_by_its_input() {
    let tools = tools(&Local::new());
    for _ in 0..2 {
        let result = tools.call("read", &json!({"file_path": "x"})).await;
        assert_eq!(Agent::good(&result.unwrap()), "input");
    }
}

#[tokio::test]
async fn without_input_it_is_asked_by_a_file() {
    let local = Local::without_input();
    let result = tools(&local).call("read", &json!({"file_path": "x"})).await;
    assert_eq!(Agent::good(&result.unwrap()), "file");
    let left = std::fs::read_dir(&local.info().temp_dir).unwrap().count();
    assert_eq!(left, 1, "only the helper stays");
}

#[tokio::test]
async fn a_helper_that_is_killed_is_an_answer() {
    let tools = tools(&Local::new());
    let result = tools.call("read", &json!({"file_path": "die"})).await;
    assert_eq!(
        Agent::bad(&result.unwrap()),
        "the tool was ended by signal 9"
    );
}

#[tokio::test]
async fn without_a_helper_there_is_no_answer() {
    let sandbox: Arc<dyn Sandbox> = Local::new();
    let tools = Toolset::new(sandbox, FileHelper::Upload);
    let result = tools.call("read", &json!({"file_path": "x"})).await;
    assert!(matches!(result, Err(CallError::NoHelper)), "{result:?}");
}
