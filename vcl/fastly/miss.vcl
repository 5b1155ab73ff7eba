# @scope: miss
# One origin request serves many clients here, so it must not contain headers of
# one of them. The timeouts are raised, because with Fastly's defaults for a
# backend a quiet stream would end, and its part so far would count as the
# complete response.

unset bereq.http.Headwater-Access;
unset bereq.http.Headwater-Edge-Auth;

if (req.http.Headwater-Path) {
  if (req.http.Authorization || req.http.Headwater-Access == "origin") {
    return(pass);
  }
  # Two heartbeats may be lost. A long poll may take 20 s until its first byte.
  set bereq.between_bytes_timeout = 20s;
  set bereq.first_byte_timeout = 30s;
  unset bereq.http.Cookie;
  unset bereq.http.Referer;
  unset bereq.http.User-Agent;
  unset bereq.http.X-Forwarded-For;
  unset bereq.http.Headwater-Path;
  # Via shows the origin that the request comes from a cache, because
  # X-Forwarded-For is removed.
  set bereq.http.Via = "1.1 headwater-edge";
  if (req.http.Headwater-Access ~ "^edge ") {
    # When this file is linted alone, the table of init.vcl is not visible.
    // falco-ignore-next-line
    set bereq.http.Headwater-Edge-Auth = table.lookup(headwater_secrets, "edge_auth", "");
  }
}
