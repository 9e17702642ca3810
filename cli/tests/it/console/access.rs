//! Who gets in.

use std::time::Duration;

use bridge::stack::{LocalStack, StackOptions};
use reqwest::Client;
use reqwest::header::{COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};

use super::{at, options, stack};

fn client() -> Client {
    shared::clients::http::client(Duration::from_secs(20))
}

/// The cookie that the printed address gives.
async fn cookie(client: &Client, stack: &LocalStack) -> String {
    let answer = client.get(stack.console().unwrap()).send().await.unwrap();
    assert_eq!(answer.status(), 303);
    assert_eq!(
        answer.headers()[LOCATION],
        "/console",
        "the token does not stay in the address"
    );
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn only_the_printed_address_opens_the_console_and_only_its_own_pages_drive_it() {
    let stack = stack().await;
    let client = client();
    let url = at(&stack, "");
    let cookie = cookie(&client, &stack).await;
    let get = |url: &str| client.get(url);
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();

    assert_eq!(status(get(&url)).await, 401);
    assert_eq!(status(get(&format!("{url}?token=guessed"))).await, 401);
    assert_eq!(status(get(&at(&stack, "/live"))).await, 401);
    assert_eq!(status(get(&url).header(COOKIE, &cookie)).await, 200);
    // A host that resolves to this machine, as a page of the internet may have.
    let rebound = get(&url)
        .header(COOKIE, &cookie)
        .header(HOST, "rebound.example:3000");
    assert_eq!(status(rebound).await, 421);

    let button = at(&stack, "/try/start/message");
    let post = || client.post(&button).header(COOKIE, &cookie);
    assert_eq!(status(post()).await, 403, "no page says that it asks");
    assert_eq!(
        status(post().header(ORIGIN, "https://elsewhere.example")).await,
        403
    );
    assert_eq!(status(post().header(ORIGIN, "null")).await, 403);
    assert_eq!(
        status(client.post(&button).header(ORIGIN, stack.url())).await,
        401
    );
    assert_eq!(status(post().header(ORIGIN, stack.url())).await, 303);
    stack.stop().await;
}

#[tokio::test]
async fn the_policy_of_every_page_allows_nothing_inline_and_nothing_from_elsewhere() {
    let stack = stack().await;
    let client = client();
    let cookie = cookie(&client, &stack).await;
    for path in [
        "",
        "/people",
        "/conversations",
        "/businesses",
        "/waiting",
        "/try",
        "/search",
        "/people/nobody",
    ] {
        let answer = client
            .get(at(&stack, path))
            .header(COOKIE, &cookie)
            .send()
            .await
            .unwrap();
        let policy = answer.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
        let page = answer.text().await.unwrap();
        assert!(
            !page.contains(" style=") && !page.contains("onclick") && !page.contains("<script>"),
            "{path}"
        );
    }
    stack.stop().await;
}

#[tokio::test]
async fn the_address_stays_the_same_with_a_data_directory_and_nobody_else_can_read_its_token() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let kept = || StackOptions {
        data_dir: Some(directory.path().to_owned()),
        ..options()
    };
    let token = |stack: &LocalStack| {
        stack
            .console()
            .unwrap()
            .split("token=")
            .nth(1)
            .unwrap()
            .to_owned()
    };
    let first = LocalStack::start(kept()).await.unwrap();
    let before = token(&first);
    first.stop().await;
    let second = LocalStack::start(kept()).await.unwrap();
    assert!(before.len() >= 32 && token(&second) == before);
    second.stop().await;
    let file = std::fs::metadata(directory.path().join("console-token")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);

    let other = LocalStack::start(options()).await.unwrap();
    assert_ne!(
        token(&other),
        before,
        "without a directory it is another each time"
    );
    other.stop().await;
}
