//! What decides a session's next step: the AgentLoop trait and the scripted loop.
#![forbid(unsafe_code)]
