//! Calls, from admission to the last byte.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use mcp_tunnel_auth::{AccessSnapshot, CallerAuth};
use mcp_tunnel_proto::ResetCode;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::gateway::Seen;
use super::world::{World, bearer, caller_key, config, get, post, request, text, tunnel_id};
use crate::clock::unix_ms;
use crate::{DevTarget, Edge, IngressBody, PeerInfo};

const HELLO: &str = r#"{"jsonrpc":"2.0","id":"a-1","method":"ping"}"#;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

fn echoes_id(answer: &Response<String>) -> bool {
    answer.body().contains(r#""id":"a-1""#)
}

#[tokio::test(start_paused = true)]
async fn a_call_passes_and_its_answer_returns() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let call = world.call(post(1, HELLO));
    let (stream, request) = gateway.request().await;
    assert!(request.starts_with("POST /mcp HTTP/1.1\r\n"), "{request}");
    assert!(
        request.ends_with(HELLO) && !request.contains("mck_"),
        "{request}"
    );
    assert!(matches!(gateway.next().await, Seen::End(id) if id == stream));
    gateway.answer(stream, OK).await;
    let answer = text(call.head().await).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.body().as_str()),
        (200, "hi")
    );
    assert_eq!(world.edge.live_calls(), 0);
    assert!(!answer.headers().contains_key("server-timing"));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_resets_the_stream() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let call = world.call(post(1, HELLO));
    let (stream, _) = gateway.request().await;
    call.hang_up();
    assert_eq!(gateway.reset_of(stream).await, ResetCode::CANCELLED);
    assert_eq!(world.edge.live_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_on_a_silent_event_stream_resets_it() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let call = world.call(post(1, HELLO));
    let (stream, _) = gateway.request().await;
    gateway.write(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    drop(call.head().await);
    assert_eq!(gateway.reset_of(stream).await, ResetCode::CANCELLED);
}

// Refusals.

#[derive(Debug, PartialEq, Eq)]
struct Whole(u16, HeaderMap, String);

async fn whole(answer: Response<String>) -> Whole {
    let (parts, body) = answer.into_parts();
    Whole(parts.status.as_u16(), parts.headers, body)
}

#[tokio::test(start_paused = true)]
async fn refusals_are_the_same_to_the_byte() {
    let mut world = World::new(config());
    let _gateway = world.active(1).await;
    world.add_tunnel(2, "other");
    world.add_key(2).expires_at_ms = Some(1);
    world.add_key(3).tunnels = Some([tunnel_id(2)].into());
    world.add_key(4).routes = Some(["docs".parse().unwrap()].into());
    world.publish();
    let reference = whole(world.answer_to(request("", HELLO)).await).await;
    assert_eq!(reference.0, 403);
    assert!(!reference.1.contains_key("www-authenticate"));
    assert!(!reference.2.contains("a-1"), "a refusal echoes nothing");

    let good = bearer(&caller_key(1));
    let with = |name: &str, value: &str| {
        let mut request = post(1, HELLO);
        request.headers_mut().append(
            name.parse::<http::HeaderName>().unwrap(),
            value.parse().unwrap(),
        );
        request
    };
    let at = |host: &str, target: &str| {
        Request::post(target)
            .header("host", host)
            .header("mcp-tunnel-authorization", &good)
            .body(Full::new(Bytes::from_static(HELLO.as_bytes())))
            .unwrap()
    };
    let key = good.trim_start_matches("Bearer ");
    let foreign_id = format!("/t/{}/mcp/mcp", tunnel_id(99));
    let mut connect = at("mcp--demo.tunnel.example", "/");
    *connect.method_mut() = http::Method::CONNECT;
    let refused = [
        ("unknown key", request(&bearer(&caller_key(99)), HELLO)),
        ("garbled key", request("Bearer mck_zzz", HELLO)),
        ("other scheme", request("Basic eA==", HELLO)),
        ("expired key", post(2, HELLO)),
        ("key of another tunnel", post(3, HELLO)),
        ("key of another route", post(4, HELLO)),
        (
            "two keys",
            with("mcp-tunnel-authorization", &bearer(&caller_key(2))),
        ),
        ("foreign origin", with("origin", "https://evil.example")),
        ("null origin", with("origin", "null")),
        (
            "own origin by another scheme",
            with("origin", "http://mcp--demo.tunnel.example"),
        ),
        ("two hosts", with("host", "mcp--demo.tunnel.example")),
        ("unknown tunnel", at("mcp--nobody.tunnel.example", "/mcp")),
        ("unknown id", at("127.0.0.1", &foreign_id)),
        ("no tunnel at all", at("127.0.0.1", "/mcp")),
        ("foreign host", at("www.example.org", "/mcp")),
        (
            "two names",
            at(
                "mcp--demo.tunnel.example",
                "https://mcp--other.tunnel.example/mcp",
            ),
        ),
        (
            "key in the target",
            at("mcp--demo.tunnel.example", &format!("/mcp?key={key}")),
        ),
        ("connect", connect),
    ];
    for (what, request) in refused {
        assert_eq!(
            whole(world.answer_to(request).await).await,
            reference,
            "{what}"
        );
    }
    // Well-known documents too: no 404 that would change a client's mind.
    let mut request = get(1);
    request.headers_mut().clear();
    request
        .headers_mut()
        .insert("host", "mcp--demo.tunnel.example".parse().unwrap());
    *request.uri_mut() = "/.well-known/oauth-protected-resource".parse().unwrap();
    assert_eq!(whole(world.answer_to(request).await).await, reference);
}

#[tokio::test(start_paused = true)]
async fn a_key_in_authorization_is_taken_and_any_other_passes() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let mut ours = post(1, HELLO);
    let key = ours
        .headers_mut()
        .remove("mcp-tunnel-authorization")
        .unwrap();
    ours.headers_mut().insert("authorization", key);
    let call = world.call(ours);
    let (stream, seen) = gateway.request().await;
    assert!(!seen.contains("authorization"), "{seen}");
    gateway.answer(stream, OK).await;
    assert_eq!(call.head().await.status(), 200);

    let mut both = post(1, HELLO);
    both.headers_mut()
        .insert("authorization", "Bearer for-the-server".parse().unwrap());
    both.headers_mut().insert(
        "origin",
        "https://mcp--demo.tunnel.example:443".parse().unwrap(),
    );
    let _call = world.call(both);
    let (_, seen) = gateway.request().await;
    assert!(
        seen.contains("authorization: Bearer for-the-server\r\n"),
        "{seen}"
    );
    assert!(
        seen.contains("origin: https://mcp--demo.tunnel.example:443\r\n"),
        "{seen}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_the_operator_named_may_call() {
    let mut world =
        World::new(config().set_allowed_origins(["https://Inspector.example".to_owned()]));
    let mut gateway = world.active(1).await;
    let mut from_page = post(1, HELLO);
    from_page
        .headers_mut()
        .insert("origin", "https://inspector.example".parse().unwrap());
    let _call = world.call(from_page);
    let (_, seen) = gateway.request().await;
    assert!(
        seen.contains("origin: https://inspector.example\r\n"),
        "{seen}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_upstream_tunnel_asks_for_no_key_and_passes_the_servers_own_challenge() {
    let mut world = World::new(config());
    world.tunnels[0].caller_auth = CallerAuth::Upstream;
    let mut gateway = world.active(1).await;
    let mut request = get(1);
    request.headers_mut().remove("mcp-tunnel-authorization");
    let call = world.call(request);
    let (stream, _) = gateway.request().await;
    gateway
        .answer(stream, "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer resource_metadata=\"x\"\r\ncontent-length: 0\r\n\r\n")
        .await;
    let answer = text(call.head().await).await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            &answer.headers()["www-authenticate"]
        ),
        (401, &"Bearer resource_metadata=\"x\"".parse().unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_ends_its_calls_and_no_others() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    world.add_key(2);
    world.publish();
    let mut streams = Vec::new();
    let mut answers = Vec::new();
    for key in [1, 2] {
        let call = world.call(post(key, HELLO));
        let (stream, _) = gateway.request().await;
        gateway
            .write(stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhi")
            .await;
        answers.push(call.head().await);
        streams.push(stream);
    }
    let start = Instant::now();
    let waiting = world.call(post(2, HELLO));
    let (no_head_yet, _) = gateway.request().await;
    world.keys.pop();
    world.publish();
    text(answers.pop().unwrap()).await.expect_err("cut");
    assert_eq!(waiting.head().await.status(), 403);
    gateway.reset_of(streams[1]).await;
    gateway.reset_of(no_head_yet).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    gateway.answer(streams[0], "ho").await;
    assert_eq!(text(answers.pop().unwrap()).await.unwrap().body(), "hiho");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_expires_ends_its_calls_without_news_and_no_others() {
    let mut world = World::new(config());
    let edge = world.edge.clone();
    let never = CancellationToken::new();
    world.tasks.spawn(async move { edge.run(never).await });
    let mut gateway = world.active(1).await;
    let start = Instant::now();
    let life = Duration::from_secs(30);
    world.add_key(2).expires_at_ms = Some(unix_ms() + 30_000);
    world.add_key(3).expires_at_ms = Some(unix_ms() + 900_000);
    world.publish();
    let mut calls = Vec::new();
    for key in [1, 2, 3] {
        let call = world.call(post(key, HELLO));
        let (stream, _) = gateway.request().await;
        gateway
            .write(stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhi")
            .await;
        calls.push((stream, call.head().await));
    }
    let waiting = world.call(post(2, HELLO));
    let (no_head_yet, _) = gateway.request().await;

    let (stream, answer) = calls.remove(1);
    text(answer).await.expect_err("cut");
    assert_eq!(waiting.head().await.status(), 403);
    gateway.reset_of(stream).await;
    gateway.reset_of(no_head_yet).await;
    assert!(start.elapsed() < life + Duration::from_secs(2));
    for (stream, answer) in calls {
        gateway.answer(stream, "ho").await;
        assert_eq!(text(answer).await.unwrap().body(), "hiho");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_revocation_overtakes_on_its_way_in_is_refused() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let mut ingress = world.edge.ingress();
    let judged = tower_service::Service::call(&mut ingress, post(1, HELLO));
    world.keys.clear();
    world.publish();
    let Ok(answer) = judged.await;
    assert_eq!(answer.status(), 403);
    gateway.go_away().await;
    let nothing = gateway.next_within(Duration::from_secs(1)).await;
    assert!(nothing.is_none(), "{nothing:?}");
}

// Failures.

#[tokio::test(start_paused = true)]
async fn an_absent_gateway_is_waited_for_and_then_named() {
    let mut world = World::new(config());
    let start = Instant::now();
    let answer = world.answer_to(post(1, HELLO)).await;
    assert_eq!(
        (answer.status().as_u16(), start.elapsed().as_secs()),
        (503, 5)
    );
    assert!(answer.headers().contains_key("retry-after"));
    assert!(
        echoes_id(&answer) && answer.body().contains("\"hop\":\"tunnel\""),
        "{}",
        answer.body()
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_is_served_by_the_gateway_that_comes() {
    let mut world = World::new(config());
    let call = world.call(post(1, HELLO));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut gateway = world.active(1).await;
    let (stream, request) = gateway.request().await;
    assert!(request.ends_with(HELLO));
    gateway.answer(stream, OK).await;
    assert_eq!(call.head().await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_calls_wait_for_gateways() {
    let mut world = World::new(config().set_max_held_calls(1));
    let first = world.call(post(1, HELLO));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    assert_eq!(world.answer_to(post(1, HELLO)).await.status(), 503);
    assert_eq!(start.elapsed(), Duration::ZERO);
    first.hang_up();
    tokio::task::yield_now().await;
    world.answer_to(post(1, HELLO)).await;
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_no_gateway_serves_is_named_at_once() {
    let mut world = World::new(config());
    world.approve(1);
    world
        .dial_as(1, 1, &["docs", "search"])
        .await
        .active()
        .await;
    let start = Instant::now();
    let mut other = world.dial_as(1, 1, &["docs", "search"]).await;
    other.active().await;
    let answer = world.answer_to(post(1, HELLO)).await;
    assert_eq!(
        (answer.status().as_u16(), start.elapsed()),
        (502, Duration::ZERO)
    );
    assert!(
        answer.body().contains("docs, search") && echoes_id(&answer),
        "{}",
        answer.body()
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_begin_is_a_timeout() {
    let mut world = World::new(config().set_head_deadline(Duration::from_secs(60)));
    let mut gateway = world.active(1).await;
    let start = Instant::now();
    let call = world.call(post(1, HELLO));
    let (stream, _) = gateway.request().await;
    let answer = text(call.head().await).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), start.elapsed().as_secs()),
        (504, 60)
    );
    assert!(echoes_id(&answer));
    gateway.reset_of(stream).await;
}

#[tokio::test(start_paused = true)]
async fn the_gateway_is_told_how_long_the_edge_waits() {
    let mut world = World::new(config().set_head_deadline(Duration::from_secs(60)));
    // A second of the minute goes by before a gateway is there.
    let call = world.call(post(1, HELLO));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut gateway = world.active(1).await;
    let (stream, _) = gateway.request().await;
    let told = gateway.last_head().deadline.unwrap();
    assert_eq!(told.as_secs(), 59, "{told:?}");
    gateway.answer(stream, OK).await;
    assert_eq!(call.head().await.status(), 200);

    // While a body comes, the wait begins anew with each part: there is nothing to tell yet.
    let parts = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
    let mut upload = post(1, "").map(|_| http_body_util::StreamBody::new(parts));
    upload.headers_mut().remove("content-length");
    let _call = world.call(upload);
    gateway.request().await;
    assert_eq!(gateway.last_head().deadline, None);
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(start_paused = true)]
async fn a_callers_trace_travels_beside_the_call_and_in_it() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    for (given, told) in [
        (&[TRACE][..], Some(TRACE)),
        (&["not-a-trace"], None),
        (&[TRACE, TRACE], None),
        // Nobody reads the log of calls: a trace of our own would lead nowhere.
        (&[], None),
    ] {
        let mut request = post(1, HELLO);
        for value in given {
            request
                .headers_mut()
                .append("traceparent", value.parse().unwrap());
        }
        let call = world.call(request);
        let (stream, seen) = gateway.request().await;
        let trace = gateway.last_head().trace.map(|trace| trace.to_string());
        assert_eq!(trace.as_deref(), told, "{given:?}");
        let passed: Vec<&str> = seen
            .lines()
            .filter_map(|line| line.strip_prefix("traceparent: "))
            .collect();
        assert_eq!(passed, given, "whatever it is, it is the server's to judge");
        gateway.answer(stream, OK).await;
        assert_eq!(call.head().await.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_moves_does_not_time_out() {
    let mut world = World::new(config().set_head_deadline(Duration::from_secs(60)));
    let mut gateway = world.active(1).await;
    let parts = futures_util::stream::unfold(0, |part| async move {
        tokio::time::sleep(Duration::from_secs(40)).await;
        let frame = http_body::Frame::data(Bytes::from_static(b"x"));
        (part < 5).then_some((Ok::<_, std::io::Error>(frame), part + 1))
    });
    let request = post(1, "").map(|_| http_body_util::StreamBody::new(parts));
    let mut request = request;
    request.headers_mut().remove("content-length");
    let call = world.call(request);
    let (stream, _) = gateway.request().await;
    gateway
        .until(|seen| matches!(seen, Seen::End(id) if *id == stream).then_some(()))
        .await;
    gateway.answer(stream, OK).await;
    assert_eq!(call.head().await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_answer_outlives_an_upload_that_nobody_wants() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let parts = futures_util::stream::unfold((), |()| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let frame = http_body::Frame::data(Bytes::from_static(&[b'x'; 10_000]));
        Some((Ok::<_, std::io::Error>(frame), ()))
    });
    let mut endless = post(1, "").map(|_| http_body_util::StreamBody::new(parts));
    endless.headers_mut().remove("content-length");
    let call = world.call(endless);
    let (stream, _) = gateway.request().await;
    gateway.stop(stream, ResetCode::NO_ERROR).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway
        .write(
            stream,
            "HTTP/1.1 413 Too Large\r\ncontent-length: 6\r\n\r\nto",
        )
        .await;
    let answer = call.head().await;
    assert_eq!(answer.status(), 413);
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway.answer(stream, "o big").await;
    assert_eq!(text(answer).await.unwrap().body(), "too bi");
}

#[tokio::test(start_paused = true)]
async fn each_way_to_fail_has_its_status() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    for (code, status) in [
        (ResetCode::REFUSED, 503),
        (ResetCode::OVERLOADED, 503),
        (ResetCode::UNREACHABLE, 502),
        (ResetCode::UNKNOWN_ROUTE, 502),
        (ResetCode::INTERNAL, 502),
        (ResetCode::NO_ERROR, 502),
        (ResetCode::DEADLINE, 504),
    ] {
        let call = world.call(post(1, HELLO));
        let (stream, _) = gateway.request().await;
        gateway.reset(stream, code).await;
        let answer = text(call.head().await).await.unwrap();
        assert_eq!(answer.status(), status, "{code}");
        assert!(
            echoes_id(&answer) && answer.headers().contains_key("retry-after"),
            "{code}"
        );
    }
    for answer in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "",
    ] {
        let call = world.call(post(1, HELLO));
        let (stream, _) = gateway.request().await;
        gateway.answer(stream, answer).await;
        assert_eq!(call.head().await.status(), 502, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_is_an_error_before_and_within_the_answer() {
    let mut world = World::new(config());
    for head in [
        None,
        Some("content-length: 100"),
        Some("transfer-encoding: chunked"),
    ] {
        let mut gateway = world.active(1).await;
        let call = world.call(post(1, HELLO));
        let (stream, _) = gateway.request().await;
        let Some(head) = head else {
            gateway.vanish().await;
            let answer = text(call.head().await).await.unwrap();
            assert!(answer.status() == 502 && echoes_id(&answer));
            continue;
        };
        gateway
            .write(
                stream,
                format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n1\r\na\r\n"),
            )
            .await;
        let mut body = call.head().await.into_body();
        body.frame().await.unwrap().unwrap();
        gateway.vanish().await;
        body.frame().await.unwrap().expect_err("the answer is cut");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_begun_goes_to_another_link_if_nothing_of_it_was_taken() {
    let mut world = World::new(config());
    let mut old = world.active(1).await;
    let mut new = world.active(1).await;
    // No body: nothing was taken, so the next link gets it.
    let call = world.call(get(1));
    let (stream, _) = new.request().await;
    new.reset(stream, ResetCode::REFUSED).await;
    let (stream, _) = old.request().await;
    old.answer(stream, OK).await;
    assert_eq!(call.head().await.status(), 200);
    // A body that went out is not sent again.
    let call = world.call(post(1, HELLO));
    let (stream, _) = new.request().await;
    new.reset(stream, ResetCode::REFUSED).await;
    assert_eq!(call.head().await.status(), 503);
    // A gateway that goes away is passed over from the start.
    new.go_away().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let call = world.call(post(1, HELLO));
    let (stream, _) = old.request().await;
    old.answer(stream, OK).await;
    assert_eq!(call.head().await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn one_call_too_many_is_told_to_come_back() {
    let mut world = World::new(config().set_max_calls(1));
    let mut gateway = world.active(1).await;
    let call = world.call(post(1, HELLO));
    gateway.request().await;
    let answer = world.answer_to(post(1, HELLO)).await;
    assert!(
        answer.status() == 503 && echoes_id(&answer),
        "{}",
        answer.body()
    );
    call.hang_up();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_too_old_ends_service_and_calls_until_news_comes() {
    let mut world = World::new(config());
    let edge = Edge::new(config());
    let mut ingress = edge.ingress();
    let Ok(answer) = tower_service::Service::call(&mut ingress, post(1, HELLO)).await;
    assert_eq!(answer.status(), 503, "before the first snapshot");

    let mut gateway = world.active(1).await;
    let (edge, stop) = (world.edge.clone(), CancellationToken::new());
    let stopped = stop.clone();
    world.tasks.spawn(async move { edge.run(stopped).await });
    let call = world.call(post(1, HELLO));
    let (stream, _) = gateway.request().await;
    gateway
        .write(stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhi")
        .await;
    let response = call.head().await;
    let start = Instant::now();
    text(response)
        .await
        .expect_err("cut when the snapshot is too old");
    assert!(
        (3_599..=3_600).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    let answer = world.answer_to(post(1, HELLO)).await;
    assert!(
        answer.status() == 503 && echoes_id(&answer),
        "{}",
        answer.body()
    );
    // An old one again is no news.
    world
        .edge
        .apply(AccessSnapshot::empty(1).into())
        .unwrap_err();
    assert_eq!(world.answer_to(post(1, HELLO)).await.status(), 503);
    world.publish();
    let call = world.call(post(1, HELLO));
    let (stream, _) = gateway.request().await;
    gateway.answer(stream, OK).await;
    assert_eq!(call.head().await.status(), 200);
    stop.cancel();
}

// What passes.

#[tokio::test(start_paused = true)]
async fn events_flush_one_by_one_and_silence_brings_comments_between_them() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let call = world.call(post(1, HELLO));
    let (stream, _) = gateway.request().await;
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    gateway.write(stream, head).await;
    let response = call.head().await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let next =
        async |body: &mut IngressBody| body.frame().await.unwrap().unwrap().into_data().unwrap();
    let start = Instant::now();
    gateway.write(stream, "9\r\ndata: 1\n\n\r\n").await;
    assert_eq!(next(&mut body).await, "data: 1\n\n");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(next(&mut body).await, ":\n\n");
    assert_eq!(start.elapsed().as_secs(), 15);
    gateway.write(stream, "8\r\ndata: 2\n\r\n").await;
    assert_eq!(next(&mut body).await, "data: 2\n");
    // Within an event there is no comment, however long it takes.
    let silent = tokio::time::timeout(Duration::from_secs(300), next(&mut body)).await;
    assert!(silent.is_err());
    gateway.write(stream, "1\r\n\n\r\n0\r\n\r\n").await;
    assert_eq!(next(&mut body).await, "\n");
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_path_form_passes_the_rest_and_no_cookies() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let target = format!("/t/{}/mcp/mcp/x?y=%2F", tunnel_id(1));
    let request = Request::get(target)
        .header("host", "127.0.0.1:8443")
        .header("authorization", bearer(&caller_key(1)))
        .header("cookie", "a=b")
        .extension(PeerInfo::tls(super::world::PEER))
        .body(Full::<Bytes>::default())
        .unwrap();
    let call = world.call(request);
    let (stream, seen) = gateway.request().await;
    assert!(seen.starts_with("GET /mcp/x?y=%2F HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("cookie"), "{seen}");
    for header in [
        "host: 127.0.0.1:8443\r\n",
        "x-forwarded-for: 192.0.2.1\r\n",
        "x-forwarded-proto: https\r\n",
    ] {
        assert!(seen.contains(header), "{seen}");
    }
    gateway.answer(stream, "HTTP/1.1 204 No Content\r\nset-cookie: a=b\r\nalt-svc: h3\r\nmcp-tunnel-hop: x\r\nmcp-session-id: s\r\n\r\n").await;
    let answer = text(call.head().await).await.unwrap();
    let names: Vec<_> = answer.headers().keys().map(|name| name.as_str()).collect();
    assert_eq!(
        (answer.status().as_u16(), names),
        (204, vec!["mcp-session-id"])
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_tells_the_time_of_each_hop() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut probe = post(1, HELLO);
    probe
        .headers_mut()
        .insert("mcp-tunnel-probe", "1".parse().unwrap());
    let call = world.call(probe);
    let (stream, seen) = gateway.request().await;
    assert!(seen.contains("mcp-tunnel-probe: 1\r\n"), "{seen}");
    gateway
        .answer(stream, "HTTP/1.1 200 OK\r\nserver-timing: gateway;dur=1, server;dur=2\r\ncontent-length: 0\r\n\r\n")
        .await;
    let answer = call.head().await;
    let timing: Vec<_> = answer.headers().get_all("server-timing").iter().collect();
    let [timing] = timing[..] else {
        panic!("one value, for clients that read no second: {timing:?}")
    };
    let timing = timing.to_str().unwrap();
    let hops: Vec<_> = timing
        .split(", ")
        .map(|hop| hop.split(';').next().unwrap())
        .collect();
    assert_eq!(
        hops,
        ["gateway", "server", "edge", "link", "total"],
        "{timing}"
    );
}

// The development ingress.

async fn dev(
    world: &World,
    target: &str,
    host: &str,
    origin: Option<&str>,
) -> Response<IngressBody> {
    let target = if target.is_empty() {
        DevTarget::default()
    } else {
        target.parse().unwrap()
    };
    let mut ingress = world.edge.dev_ingress(target);
    let mut request = Request::post("/mcp").header("host", host);
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    let request = request
        .body(Full::new(Bytes::from_static(HELLO.as_bytes())))
        .unwrap();
    let Ok(answer) = tower_service::Service::call(&mut ingress, request).await;
    answer
}

#[tokio::test(start_paused = true)]
async fn the_development_ingress_serves_loopback_names_without_a_key() {
    let mut world = World::new(config());
    let mut gateway = world.active(1).await;
    let mut ingress = world.edge.dev_ingress(DevTarget::default());
    let request = Request::post("/mcp")
        .header("host", "localhost:8000")
        .header("origin", "http://localhost:8000");
    let request = request
        .body(Full::new(Bytes::from_static(HELLO.as_bytes())))
        .unwrap();
    let call = tower_service::Service::call(&mut ingress, request);
    let answering = async {
        let (stream, seen) = gateway.request().await;
        assert!(
            seen.contains("host: localhost:8000\r\n")
                && seen.contains("x-forwarded-proto: http\r\n"),
            "{seen}"
        );
        gateway.answer(stream, OK).await;
    };
    let (answer, ()) = tokio::join!(call, answering);
    assert_eq!(answer.unwrap().status(), 200);

    assert_eq!(dev(&world, "", "evil.example", None).await.status(), 421);
    assert_eq!(
        dev(&world, "", "mcp--demo.tunnel.example", None)
            .await
            .status(),
        421
    );
    assert_eq!(dev(&world, "docs", "localhost", None).await.status(), 502);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_origin_on_the_development_ingress_is_named_with_the_cure() {
    let world = World::new(config());
    let key = bearer(&caller_key(1));
    let key = key.trim_start_matches("Bearer ");
    for (origin, named) in [
        (
            "http://evil.example",
            r#"a web page of \"http://evil.example\""#,
        ),
        ("null", r#"a web page of \"null\""#),
        (key, r#"a web page of \"\""#),
    ] {
        let answer = dev(&world, "", "localhost", Some(origin)).await;
        let answer = text(answer).await.unwrap();
        assert_eq!(answer.status(), 403);
        let said = answer.body();
        assert!(said.contains(named), "{said}");
        assert!(said.contains("open the page from localhost"), "{said}");
        // It asks for no key, and repeats none.
        assert!(
            !said.contains("caller key") && !said.contains("mck_"),
            "{said}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_development_ingress_names_the_flag() {
    let mut world = World::new(config());
    world.approve(1);
    let mut gateway = world.dial_as(1, 1, &["docs", "search"]).await;
    gateway.active().await;
    let several_routes = text(dev(&world, "", "localhost", None).await)
        .await
        .unwrap();
    world.add_tunnel(2, "other");
    world.publish();
    let several_tunnels = text(dev(&world, "docs", "localhost", None).await)
        .await
        .unwrap();
    for answer in [several_routes, several_tunnels] {
        assert_eq!(answer.status(), 503);
        assert!(
            answer.body().contains("--dev-ingress") && echoes_id(&answer),
            "{}",
            answer.body()
        );
    }
}
