// More promises of deliver.vcl, which falco cannot test: its fastly_info.state, the visit to a shield and
// a restart cannot be set.
// Run by `tests/run vcl::`, in the same format.

// @scope: deliver
// @suite: HIT stands in the standard header
sub test_deliver_hit {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; hit"});
}

// @scope: deliver
// @suite: HIT-CLUSTER stands in the standard header
sub test_deliver_hit_cluster {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT-CLUSTER");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; hit"});
}

// @scope: deliver
// @suite: HIT-STALE stands in the standard header
sub test_deliver_stale {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT-STALE");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; hit; detail=stale"});
}

// @scope: deliver
// @suite: HIT-SYNTH stands in the standard header
sub test_deliver_synth {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT-SYNTH");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; detail=synthetic"});
}

// @scope: deliver
// @suite: ERROR stands in the standard header
sub test_deliver_error {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "ERROR");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; detail=synthetic"});
}

// @scope: deliver
// @suite: MISS stands in the standard header
sub test_deliver_miss {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "MISS");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=uri-miss"});
}

// @scope: deliver
// @suite: MISS-CLUSTER stands in the standard header
sub test_deliver_miss_cluster {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "MISS-CLUSTER");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=uri-miss"});
}

// @scope: deliver
// @suite: MISS-WAIT-CLUSTER stands in the standard header
sub test_deliver_wait {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "MISS-WAIT-CLUSTER");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=uri-miss; collapsed"});
}

// @scope: deliver
// @suite: PASS stands in the standard header
sub test_deliver_pass {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "PASS");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=bypass"});
}

// @scope: deliver
// @suite: HIT-REFRESH-CLUSTER stands in the standard header
sub test_deliver_refresh {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT-REFRESH-CLUSTER");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=stale"});
}

// @scope: deliver
// @suite: NONE stands in the standard header
sub test_deliver_none {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "NONE");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge""});
}

// @scope: deliver
// @suite: HITPASS stands in the standard header
sub test_deliver_hitpass {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HITPASS");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=bypass"});
}

// @scope: deliver
// @suite: a shield leaves both marks to the edge, and names no page
sub test_deliver_shield {
  testing.inject_variable("fastly.ff.visits_this_service", 1);
  set req.http.Headwater-Path = "stream";
  set req.http.Origin = "https://app.example";
  set resp.http.Headwater-Shed = "kept";
  set resp.http.Headwater-Cors = "edge";
  testing.call_subroutine("vcl_deliver");
  assert.state(deliver);
  assert.equal(resp.http.Headwater-Shed, "kept");
  assert.equal(resp.http.Headwater-Cors, "edge");
  assert.is_notset(resp.http.Access-Control-Allow-Origin);
  assert.is_notset(resp.http.Vary);
}

// The way of one request whose answer is a failure, from the one subroutine to the next as at Fastly.
describe a_failure_is_answered_by_the_edge {
  // @scope: recv
  sub asked {
    set req.url = "/channels/a?after=1-0";
    set req.http.Origin = "https://app.example";
    testing.call_subroutine("vcl_recv");
    assert.state(lookup);
  }

  // @scope: fetch
  sub failed {
    set beresp.status = 502;
    set beresp.http.Content-Type = "text/html";
    testing.call_subroutine("vcl_fetch");
    assert.state(deliver);
  }

  // @scope: deliver
  sub begun_again {
    set resp.http.Headwater-Shed = "kept";
    testing.call_subroutine("vcl_deliver");
    assert.restart();
  }

  // @scope: recv
  sub asked_again {
    testing.inject_variable("req.restarts", 1);
    testing.call_subroutine("vcl_recv");
    assert.error(690);
  }

  // @scope: error
  sub written {
    set obj.status = 690;
    testing.call_subroutine("vcl_error");
    assert.equal(obj.status, 200);
    assert.starts_with(testing.synthetic_body, "retry: ");
    assert.equal(obj.http.Headwater-Shed, "edge");
    assert.equal(obj.http.Headwater-Cors, "edge");
  }

  // @scope: deliver
  sub delivered {
    set resp.http.Headwater-Shed = "edge";
    set resp.http.Headwater-Cors = "edge";
    testing.call_subroutine("vcl_deliver");
    assert.state(deliver);
    assert.equal(resp.http.Access-Control-Allow-Origin, "https://app.example");
    assert.equal(resp.http.Access-Control-Allow-Credentials, "true");
  }
}
