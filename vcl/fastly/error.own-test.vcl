// More promises of error.vcl, which falco cannot test: it has no assert.is_json yet.
// Run by `tests/run vcl::`, in the same format.

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
  assert.is_json(testing.synthetic_body);
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
  assert.is_json(testing.synthetic_body);
  assert.contains(testing.synthetic_body, "urn:headwater:problem:origin-unreachable");
  assert.not_match(obj.http.Headwater-Shed, ".");
}
