//! The recipes of docs/migrating with which nginx serves the URLs of another product from Headwater.

use super::document;
use crate::kit::edge::Cache;
use crate::kit::redis::free_port;
use crate::kit::{Origin, request};
use hyper::Method;

/// nginx with the last recipe of a page, before an origin and a port on which no other server listens.
fn nginx(page: &str, origin: &Origin) -> Cache {
    let text = document(page);
    let recipe = text.split("\n```nginx\n").last().and_then(|rest| rest.split("```").next());
    let recipe = recipe
        .expect("a recipe")
        .replace("127.0.0.1:8080", &origin.listen.to_string())
        .replace("127.0.0.1:3000", &format!("127.0.0.1:{}", free_port()));
    Cache::nginx_own(|port| {
        let recipe = recipe.replace("127.0.0.1:8090", &format!("127.0.0.1:{port}"));
        assert!(recipe.contains(&port.to_string()), "{recipe}");
        format!("events {{}}\nhttp {{\n{recipe}\n}}")
    })
}

/// Reads a stream to its end, as a page of another site that comes back with the id of the other product.
async fn read(front: &Cache, path: &str, id: &str) -> (u16, String) {
    let headers = [("last-event-id", id), ("origin", "https://www.example.com")];
    let answer = request(&front.address(), Method::GET, path, &headers, "".into()).await;
    let answer = answer.expect("an answer");
    if answer.status == 200 {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
    }
    (answer.status.as_u16(), answer.body)
}

#[tokio::test]
async fn the_old_url_of_a_mercure_topic_is_served_from_its_channel() {
    let origin = Origin::with(&["--store", "memory", "--segment", "1s"]);
    origin.publish_with("books.1", "key=1", "checked out").await;
    let front = nginx("docs/migrating/mercure.md", &origin);
    let id = "urn:uuid:e1ee88e2-532a-4d6f-ba70-f0f8bd584022";
    for topic in ["https%3A%2F%2Fexample.com%2Fbooks%2F1", "https://example.com/books/1"] {
        let (status, body) = read(&front, &format!("/.well-known/mercure?topic={topic}"), id).await;
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(r#""reason":"unknown""#), "{body}");
        assert!(body.contains("data: checked out"), "{body}");
    }
    // The hub, which does not run here, gets all other requests.
    for topic in ["https://example.com/authors/1", "https://example.com/books/1/pages"] {
        let (status, _) = read(&front, &format!("/.well-known/mercure?topic={topic}"), id).await;
        assert_eq!(status, 502, "{topic}");
    }
}

#[tokio::test]
async fn the_old_url_of_an_nchan_subscriber_is_served_from_its_channel() {
    let origin = Origin::with(&["--store", "memory", "--segment", "1s"]);
    origin.publish_with("prices", "key=EURUSD", "1.07").await;
    let front = nginx("docs/migrating/nchan.md", &origin);
    let (status, body) = read(&front, "/sub/prices", "1795734465:0").await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(r#""reason":"unknown""#), "{body}");
    assert!(body.contains("data: 1.07"), "{body}");
}
