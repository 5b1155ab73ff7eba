// Promises of error.vcl: what a client hears when the origin is silent.
// Each runs the whole vcl_error of main.vcl.

// @scope: error
// @suite: 503 on a stream path is a stream of one retry and one event
sub test_error_503 {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set obj.status = 503;
  set obj.response = "x";
  set obj.http.Retry-After = "9";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.status, 200);
  assert.equal(obj.response, "OK");
  assert.equal(obj.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(obj.http.Cache-Control, "public, max-age=1");
  assert.equal(obj.http.Headwater-Shed, "edge");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.not_match(obj.http.Retry-After, ".");
  assert.match(testing.synthetic_body, {"^retry: ([2-4][0-9]{3}|5000)\nevent: shed\ndata: \{"reason":"edge","retry_ms":([2-4][0-9]{3}|5000)\}\n\n$"});
}

// @scope: error
// @suite: 690 on a stream path is a stream of one retry and one event
sub test_error_690 {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set obj.status = 690;
  set obj.response = "x";
  set obj.http.Retry-After = "9";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.status, 200);
  assert.equal(obj.response, "OK");
  assert.equal(obj.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(obj.http.Cache-Control, "public, max-age=1");
  assert.equal(obj.http.Headwater-Shed, "edge");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.not_match(obj.http.Retry-After, ".");
  assert.match(testing.synthetic_body, {"^retry: ([2-4][0-9]{3}|5000)\nevent: shed\ndata: \{"reason":"edge","retry_ms":([2-4][0-9]{3}|5000)\}\n\n$"});
}

// @scope: error
// @suite: 429 on a stream path is a stream of one retry and one event
sub test_error_429 {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set obj.status = 429;
  set obj.response = "x";
  set obj.http.Retry-After = "9";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.status, 200);
  assert.equal(obj.response, "OK");
  assert.equal(obj.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(obj.http.Cache-Control, "public, max-age=1");
  assert.equal(obj.http.Headwater-Shed, "edge");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.not_match(obj.http.Retry-After, ".");
  assert.match(testing.synthetic_body, {"^retry: ([2-4][0-9]{3}|5000)\nevent: shed\ndata: \{"reason":"edge","retry_ms":([2-4][0-9]{3}|5000)\}\n\n$"});
}

// @scope: error
// @suite: 502 on a stream path is a stream of one retry and one event
sub test_error_502 {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set obj.status = 502;
  set obj.response = "x";
  set obj.http.Retry-After = "9";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.status, 200);
  assert.equal(obj.response, "OK");
  assert.equal(obj.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(obj.http.Cache-Control, "public, max-age=1");
  assert.equal(obj.http.Headwater-Shed, "edge");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.not_match(obj.http.Retry-After, ".");
  assert.match(testing.synthetic_body, {"^retry: ([2-4][0-9]{3}|5000)\nevent: shed\ndata: \{"reason":"edge","retry_ms":([2-4][0-9]{3}|5000)\}\n\n$"});
}

// @scope: error
// @suite: 599 on a stream path is a stream of one retry and one event
sub test_error_599 {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set obj.status = 599;
  set obj.response = "x";
  set obj.http.Retry-After = "9";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.status, 200);
  assert.equal(obj.response, "OK");
  assert.equal(obj.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(obj.http.Cache-Control, "public, max-age=1");
  assert.equal(obj.http.Headwater-Shed, "edge");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.not_match(obj.http.Retry-After, ".");
  assert.match(testing.synthetic_body, {"^retry: ([2-4][0-9]{3}|5000)\nevent: shed\ndata: \{"reason":"edge","retry_ms":([2-4][0-9]{3}|5000)\}\n\n$"});
}

// @scope: error
// @suite: 401 of another file on a stream path is left alone
sub test_error_401 {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set obj.status = 401;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 401);
  assert.not_match(obj.http.Headwater-Shed, ".");
}

// @scope: error
// @suite: 601 of another file on a stream path is left alone
sub test_error_601 {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set obj.status = 601;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 601);
  assert.not_match(obj.http.Headwater-Shed, ".");
}

// @scope: error
// @suite: 700 of another file on a stream path is left alone
sub test_error_700 {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set obj.status = 700;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 700);
  assert.not_match(obj.http.Headwater-Shed, ".");
}

// @scope: error
// @suite: a history that cannot reach the origin is a 503 that says so
sub test_error_history {
  set req.url = "/channels/a/history";
  set req.http.Headwater-Path = "history";
  set obj.status = 503;
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.status, 503);
  assert.equal(obj.http.Content-Type, "application/problem+json");
  assert.equal(obj.http.Cache-Control, "no-store");
  assert.equal(obj.http.Retry-After, "2");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.contains(testing.synthetic_body, "urn:headwater:problem:origin-unreachable");
  assert.not_match(obj.http.Headwater-Shed, ".");
}

// @scope: error
// @suite: a publish that cannot reach the origin is a 503 that says so
sub test_error_publish {
  set req.url = "/channels/a?key=x";
  unset req.http.Headwater-Path;
  set obj.status = 503;
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.status, 503);
  assert.equal(obj.http.Content-Type, "application/problem+json");
  assert.equal(obj.http.Cache-Control, "no-store");
  assert.equal(obj.http.Retry-After, "2");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.contains(testing.synthetic_body, "urn:headwater:problem:origin-unreachable");
  assert.not_match(obj.http.Headwater-Shed, ".");
}

// @scope: error
// @suite: an error on a foreign path is not ours
sub test_error_foreign {
  set req.url = "/app";
  unset req.http.Headwater-Path;
  set obj.status = 503;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 503);
  assert.not_match(obj.http.Content-Type, ".");
  assert.not_match(obj.http.Headwater-Shed, ".");
}

// @scope: error
// @suite: a path that only contains ours is not ours
sub test_error_foreign_prefix {
  set req.url = "/x/channels/a";
  unset req.http.Headwater-Path;
  set obj.status = 503;
  testing.call_subroutine("vcl_error");
  assert.not_match(obj.http.Content-Type, ".");
}

// @scope: error
// @suite: the event says the same wait as the field, and nothing stands behind it
sub test_error_body {
  declare local var.retry STRING;
  declare local var.expected STRING;
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set obj.status = 690;
  testing.call_subroutine("vcl_error");
  set var.retry = regsub(testing.synthetic_body, "(?s)^retry: ([0-9]+)\n.*$", "\1");
  assert.match(var.retry, "^([2-4][0-9]{3}|5000)$");
  set var.expected = {"retry: "} var.retry {"
event: shed
data: {"reason":"edge","retry_ms":"} var.retry {"}

"};
  assert.equal(testing.synthetic_body, var.expected);
}

// @scope: error
// @suite: no answer that a shield may give to several pages names one of them
sub test_error_page {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  set req.http.Origin = "https://app.example";
  set obj.status = 503;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  assert.is_notset(obj.http.Access-Control-Allow-Credentials);
  assert.is_notset(obj.http.Vary);
  set req.url = "/channels/a/history";
  set req.http.Headwater-Path = "history";
  set obj.status = 503;
  unset obj.http.Headwater-Cors;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  assert.is_notset(obj.http.Vary);
}
