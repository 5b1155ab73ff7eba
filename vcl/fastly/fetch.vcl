# @scope: fetch
# Makes live streams flow, and origin failures harmless. How long a stream may
# be kept stays with the origin's headers: beresp.ttl set by hand would forget
# the Age a shield has added, and replay a segment after its end.

if (req.http.Headwater-Path == "stream") {
  unset beresp.http.Set-Cookie;
  # A stale stream is a recording: it ends at once and the client asks again at once.
  set beresp.stale_while_revalidate = 0s;
  set beresp.stale_if_error = 0s;
  # Compression holds bytes back until it has enough of them.
  set beresp.gzip = false;
  set beresp.brotli = false;

  if (beresp.status == 200) {
    if (beresp.http.Content-Type ~ "(?i)^text/event-stream") {
      set beresp.do_stream = true;
    }
  } elseif (beresp.status == 204 && req.http.Headwater-Access != "origin") {
    # "Ask no more" is told to a whole crowd at once. The header is there for
    # the code after this, which gives an hour to answers that name no lifetime.
    set beresp.cacheable = true;
    set beresp.ttl = 1s;
    set beresp.http.Cache-Control = "public, max-age=1";
    unset beresp.http.Surrogate-Control;
  } elseif (beresp.status >= 500 || beresp.status == 429) {
    # What is passed is not kept, so there is nothing to lose by a proper body.
    if (req.http.Authorization || req.http.Headwater-Access == "origin") {
      error 690 "Headwater shed";
    }
    # EventSource gives up for good on anything but 200. `error` would give the
    # right body, but its object is never cached, and the clients that wait would be
    # sent to the origin one by one. So this object is kept, with a body that no
    # client receives: hit.vcl and deliver.vcl put the one of error.vcl in its place.
    # Headers that name the page of the first request must not reach other pages.
    set beresp.status = 200;
    set beresp.response = "OK";
    set beresp.cacheable = true;
    set beresp.ttl = 1s;
    set beresp.http.Content-Type = "text/event-stream; charset=utf-8";
    set beresp.http.Cache-Control = "public, max-age=1";
    set beresp.http.Headwater-Shed = "kept";
    unset beresp.http.Access-Control-Allow-Origin;
    unset beresp.http.Access-Control-Allow-Credentials;
    unset beresp.http.Vary;
    unset beresp.http.Surrogate-Control;
    unset beresp.http.Expires;
    unset beresp.http.Retry-After;
  }
} elseif (req.http.Headwater-Path == "history" && req.http.Headwater-Access != "origin" && (beresp.status >= 500 || beresp.status == 429)) {
  # Uncacheable, it would be fetched again for each of those who wait for it.
  set beresp.cacheable = true;
  set beresp.ttl = 1s;
  set beresp.stale_while_revalidate = 0s;
  set beresp.stale_if_error = 0s;
  set beresp.http.Cache-Control = "public, max-age=1";
  unset beresp.http.Surrogate-Control;
  # The code after this would try the origin once more for each of them.
  return(deliver);
}
