// Promises of hit.vcl: what is done with a kept failure.
// Each runs the whole vcl_hit of main.vcl.

// @scope: hit
// @suite: a kept failure is answered anew
sub test_hit {
  set req.http.Headwater-Path = "stream";
  set obj.http.Headwater-Shed = "kept";
  testing.call_subroutine("vcl_hit");
  assert.error(690);
}

// @scope: hit
// @suite: so is a shield's own answer to a failure, each time with a wait of its own
sub test_hit_shield {
  set req.http.Headwater-Path = "stream";
  set obj.http.Headwater-Shed = "edge";
  testing.call_subroutine("vcl_hit");
  assert.error(690);
}

// @scope: hit
// @suite: a stream that the origin itself sends away is delivered as it is
sub test_hit_origin {
  set req.http.Headwater-Path = "stream";
  set obj.http.Headwater-Shed = "connections";
  testing.call_subroutine("vcl_hit");
  assert.state(deliver);
  set obj.http.Headwater-Shed = "token-expired";
  testing.call_subroutine("vcl_hit");
  assert.state(deliver);
}

// @scope: hit
// @suite: a stream is delivered as it is
sub test_hit_stream {
  set req.http.Headwater-Path = "stream";
  unset obj.http.Headwater-Shed;
  testing.call_subroutine("vcl_hit");
  assert.state(deliver);
}

// @scope: hit
// @suite: the mark of a failure means nothing on other paths
sub test_hit_foreign {
  unset req.http.Headwater-Path;
  set obj.http.Headwater-Shed = "kept";
  testing.call_subroutine("vcl_hit");
  assert.state(deliver);
}
