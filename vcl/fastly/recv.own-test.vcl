// More promises of recv.vcl, which falco cannot test: its client.ip, the visit to a shield and a restart
// cannot be set.
// Run by `tests/run vcl::`, in the same format.

// @scope: recv
// @suite: the lane is the client's, so clients are spread over the lanes
sub test_lanes_spread {
  declare local var.first STRING;
  testing.table_set(headwater, "lanes", "64");
  testing.inject_variable("client.ip", std.ip("192.0.2.1", "0.0.0.0"));
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  set var.first = req.url;
  testing.inject_variable("client.ip", std.ip("192.0.2.2", "0.0.0.0"));
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.not_equal(req.url, var.first);
}

// @scope: recv
// @suite: a shield passes on what the edge has made, a lane of its own choice included
sub test_shield {
  testing.table_set(headwater, "lanes", "4");
  set req.url = "/channels/a?format=json&after=1-0&lane=3&mode=hold&since=-5m&last=7";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/a?lane=3&mode=hold&format=json");
  assert.equal(req.http.Last-Event-ID, "1-0");
  testing.inject_variable("fastly.ff.visits_this_service", 1);
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.url, "/channels/a?lane=3&mode=hold&format=json");
  assert.equal(req.http.Last-Event-ID, "1-0");
  unset req.http.Last-Event-ID;
  set req.url = "/channels/a?since=-5m&lane=3&mode=hold&format=json";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/a?since=-5m&lane=3&mode=hold&format=json");
  set req.url = "/channels/a/history?after=1-0&before=9-0&since=-5m&last=5&limit=10";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/a/history?after=1-0&before=9-0&since=-5m&last=5&limit=10");
}

// @scope: recv
// @suite: the restart after a failure leads to an answer of the edge, on streams alone
sub test_shed {
  testing.inject_variable("req.restarts", 1);
  set req.url = "/channels/a";
  set req.http.Headwater-Shed = "edge";
  testing.call_subroutine("vcl_recv");
  assert.error(690);
  set req.url = "/app";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
}

// @scope: recv
// @suite: a page that is not in the list of --cors-origin shares the answer of a request without an Origin
sub test_pages {
  testing.table_set(headwater, "cors_origins", "https://one.example, https://two.example");
  set req.url = "/channels/a";
  set req.http.Origin = "https://one.example";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Origin, "https://one.example");
  set req.http.Origin = "https://two.example";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Origin, "https://two.example");
  set req.http.Origin = "https://two.example.evil.example";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Origin);
  set req.http.Origin = "https://one.example https://two.example";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Origin);
  set req.url = "/channels/a/history?last=5";
  set req.http.Origin = "https://invented.example";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Origin);
  testing.table_set(headwater, "cors_origins", "");
  set req.http.Origin = "https://invented.example";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Origin, "https://invented.example");
}
