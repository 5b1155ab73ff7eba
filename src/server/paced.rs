//! Answers requests at the pace of their connection ([`RequestPace`]).

use crate::limits::request_pace::RequestPace;
use hyper::Response;

/// Returns the response, at the pace of the connection if it has one. A publish that is accepted
/// does not wait: only the response to a refused one does.
pub async fn paced<B>(
    pace: Option<&RequestPace>,
    is_publish: bool,
    answer: impl Future<Output = Response<B>>,
) -> Response<B> {
    let Some(pace) = pace else { return answer.await };
    if !is_publish {
        pace.request().await;
    }
    let answer = answer.await;
    if is_publish && !answer.status().is_success() {
        pace.request().await;
    }
    answer
}
