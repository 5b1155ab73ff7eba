// More promises of recv.vcl, which falco cannot test: its client.ip cannot be set.
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
