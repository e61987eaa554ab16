//! Escalations posted to a server that is really there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use jiff::Timestamp;
use serde_json::Value;
use tasker::webhook::{DELIVERY, SIGNATURE, Unverified, Verifier, Webhook, WebhookError};
use tasker::{
    Escalation, EscalationQuery, EscalationSink, MemoryStore, RetryPolicy, StepContext, StepError,
    StepTemplate, TaskRequest, TaskTemplate, Tasker, Workflow, step_fn,
};
use tokio::net::TcpListener;

const SECRET: &str = "w6Jq-very-secret";
const LONG: Duration = Duration::from_secs(20);

/// How the server answers, one request after the other.
type Answers = Vec<Option<StatusCode>>;

#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<Answers>>,
    got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Server {
    /// Starts to answer as is said, the last answer first; `None` never comes.
    async fn start(answers: Answers) -> (Self, String) {
        let server = Self { answers: Arc::new(Mutex::new(answers)), got: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url =
            format!("http://{}/hooks/s3cr3t-path?token=t0ken", listener.local_addr().unwrap());
        let router =
            Router::new().route("/hooks/{*rest}", post(receive)).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, url)
    }

    fn got(&self) -> Vec<(HeaderMap, Bytes)> {
        self.got.lock().unwrap().clone()
    }
}

async fn receive(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Response {
    server.got.lock().unwrap().push((headers, body));
    let answer = server.answers.lock().unwrap().pop().unwrap_or(Some(StatusCode::NO_CONTENT));
    match answer {
        Some(status) if status.is_redirection() => {
            (status, [(header::LOCATION, "/hooks/elsewhere")]).into_response()
        }
        Some(status) => status.into_response(),
        None => std::future::pending().await,
    }
}

fn tasker(sink: Option<Webhook>) -> Tasker {
    let step = StepTemplate::new("charge").retry(RetryPolicy::none());
    let template = TaskTemplate::builder("order").step(step).build().unwrap();
    let fails = step_fn(|_: StepContext| async {
        Err::<(), _>(StepError::permanent("CARD_DECLINED", "the card was declined"))
    });
    let workflow = Workflow::new(template).step("charge", fails);
    let mut builder = Tasker::builder(MemoryStore::new()).register(workflow);
    if let Some(sink) = sink {
        builder = builder.escalate_to(sink);
    }
    builder.build().unwrap()
}

/// An escalation as a worker would deliver it.
async fn escalation() -> Escalation {
    let tasker = tasker(None);
    let worker = tasker.worker().start();
    let id = tasker.submit(TaskRequest::new("order", &()).unwrap()).await.unwrap().id;
    tasker.wait(id, LONG).await.unwrap();
    worker.shutdown(LONG).await;
    let page = tasker.escalations(EscalationQuery::default()).await.unwrap();
    page.escalations.into_iter().next().unwrap()
}

fn signature(headers: &HeaderMap) -> &str {
    headers[SIGNATURE].to_str().unwrap()
}

#[tokio::test]
async fn a_delivery_says_what_is_wrong_and_who_says_so() {
    let (server, url) = Server::start(Vec::new()).await;
    let tasker = tasker(Some(Webhook::new(&url, SECRET).unwrap()));
    let mut got = server.got();
    let worker = tasker.worker().start();
    let id = tasker.submit(TaskRequest::new("order", &"a secret").unwrap()).await.unwrap().id;
    let delivered = async {
        while got.is_empty() {
            tokio::task::yield_now().await;
            got = server.got();
        }
    };
    tokio::time::timeout(LONG, delivered).await.unwrap();
    worker.shutdown(LONG).await;

    let (headers, body) = &got[0];
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    let said: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(headers[DELIVERY], said["id"].as_str().unwrap());
    assert_eq!(said["kind"], "step_failed");
    assert_eq!(said["task"], id.to_string());
    assert_eq!(said["task_type"], "default/order@0.1.0");
    assert_eq!((&said["step"], &said["attempt"]), (&"charge".into(), &1.into()));
    let sentence = said["sentence"].as_str().unwrap();
    assert!(sentence.ends_with("the card was declined (CARD_DECLINED)"), "{sentence}");
    assert!(!said.to_string().contains("a secret"));

    let verifier = Verifier::new(SECRET).unwrap();
    assert_eq!(verifier.verify(signature(headers), body), Ok(()));
    let changed = [body.as_ref(), b" "].concat();
    assert_eq!(verifier.verify(signature(headers), &changed), Err(Unverified::Mismatch));
    let stranger = Verifier::new("another secret").unwrap();
    assert_eq!(stranger.verify(signature(headers), body), Err(Unverified::Mismatch));
    let later = Timestamp::now() + Duration::from_secs(301);
    let replayed = verifier.verify_at(signature(headers), body, later);
    assert_eq!(replayed, Err(Unverified::Stale));
    for nonsense in ["", "t=1", "v1=00", "t=now,v1=00"] {
        assert_eq!(verifier.verify(nonsense, body), Err(Unverified::Malformed), "{nonsense}");
    }
    // Other parts, and an older signature beside it, do no harm.
    let rotated = format!("v0=1,v1=0g,v1=00,{}", signature(headers));
    assert_eq!(verifier.verify(&rotated, body), Ok(()));
}

#[tokio::test]
async fn only_an_answer_of_2xx_is_a_delivery() {
    let answers = [
        StatusCode::OK,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::SEE_OTHER,
        StatusCode::NOT_FOUND,
        StatusCode::INTERNAL_SERVER_ERROR,
    ];
    let (server, url) = Server::start(answers.map(Some).to_vec()).await;
    let webhook = Webhook::new(&url, SECRET).unwrap();
    let escalation = escalation().await;
    for status in [500, 404, 303, 307] {
        let error = webhook.deliver(&escalation).await.unwrap_err();
        assert_eq!(error.to_string(), format!("127.0.0.1 answered {status}"));
    }
    webhook.deliver(&escalation).await.unwrap();
    assert_eq!(server.got().len(), 5, "no redirect is followed");
    let keys: Vec<_> = server.got().iter().map(|(headers, _)| headers[DELIVERY].clone()).collect();
    assert!(keys.iter().all(|key| *key == escalation.key));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for() {
    let (server, url) = Server::start(vec![None]).await;
    let webhook = Webhook::new(&url, SECRET).unwrap().timeout(Duration::from_millis(200));
    let error = webhook.deliver(&escalation().await).await.unwrap_err();
    assert_eq!(error.to_string(), "127.0.0.1 did not answer in time");
    assert_eq!(server.got().len(), 1);
}

#[tokio::test]
async fn what_is_secret_is_in_no_error_and_not_shown() {
    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/s3cr3t-path?token=t0ken", listener.local_addr().unwrap());
    drop(listener);
    let webhook = Webhook::new(&url, SECRET).unwrap();
    let error = webhook.deliver(&escalation().await).await.unwrap_err();
    assert!(error.to_string().starts_with("127.0.0.1 cannot be reached: "), "{error}");
    let verifier = Verifier::new(SECRET).unwrap();
    let shown = format!("{error} {error:?} {webhook:?} {verifier:?}");
    for secret in [SECRET, "s3cr3t-path", "t0ken"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn what_cannot_be_a_webhook_is_refused() {
    let refused = |url, secret: &str| Webhook::new(url, secret).unwrap_err();
    for url in ["", "/path", "pager.example", "ftp://pager.example/"] {
        assert!(matches!(refused(url, SECRET), WebhookError::InvalidUrl), "{url}");
    }
    let with_user = refused("https://ada:pw@pager.example/", SECRET);
    assert!(matches!(with_user, WebhookError::UserInUrl));
    assert!(!format!("{with_user} {with_user:?}").contains("pw"));
    assert!(matches!(refused("https://pager.example/", ""), WebhookError::NoSecret));
    let _ = Webhook::new("https://pager.example/", SECRET).unwrap();
}
