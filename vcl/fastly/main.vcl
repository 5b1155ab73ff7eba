# The complete service as custom VCL, for services whose VCL is in one file. It
# has no logic beyond what Fastly expects of a main file: it includes the
# snippet files unchanged, so both ways to install run the same text. `headwater
# edge fastly` prints it as one file, filled in.

include "init";

include "private";

# Shielding and the control panel work only with backends that were made through
# the API. To use such a backend, delete this block and the line that selects
# it.
backend F_headwater {
  .dynamic = true;
  .share_key = "YOURSERVICEID";
  .host = "origin.example.com";
  .port = "443";
  .ssl = true;
  .ssl_cert_hostname = "origin.example.com";
  .ssl_sni_hostname = "origin.example.com";
  .ssl_check_cert = always;
  .host_header = "origin.example.com";
  .always_use_host_header = true;
  .connect_timeout = 2s;
  .first_byte_timeout = 30s;
  .between_bytes_timeout = 20s;
  # A stream keeps its connection open for a whole segment.
  .max_connections = 1000;
  # While the probe fails, Fastly answers from error.vcl without a request to
  # the origin.
  .probe = {
    .request = "GET /healthz HTTP/1.1" "Host: origin.example.com" "Connection: close";
    .expected_response = 200;
    .interval = 2s;
    .timeout = 1s;
    .window = 4;
    .threshold = 2;
    .initial = 2;
  }
}

sub vcl_recv {
#FASTLY recv
  set req.backend = F_headwater;

include "recv";

  if (req.method != "HEAD" && req.method != "GET" && req.method != "FASTLYPURGE") {
    return(pass);
  }
  return(lookup);
}

sub vcl_hash {
  set req.hash += req.url;
  set req.hash += req.http.host;
#FASTLY hash

include "hash";

  return(hash);
}

sub vcl_hit {
#FASTLY hit

include "hit";

  return(deliver);
}

sub vcl_miss {
#FASTLY miss

include "miss";

  return(fetch);
}

sub vcl_pass {
#FASTLY pass

include "pass";

  return(pass);
}

sub vcl_fetch {
#FASTLY fetch

include "fetch";

  if (beresp.http.Set-Cookie || beresp.http.Cache-Control ~ "(?i)(private|no-store)") {
    return(pass);
  }
  # A response that names no lifetime is not cached.
  if (!beresp.http.Expires && !beresp.http.Surrogate-Control && beresp.http.Cache-Control !~ "(?i)(s-maxage|max-age)") {
    set beresp.ttl = 0s;
    set beresp.cacheable = false;
  }
  return(deliver);
}

sub vcl_error {
#FASTLY error

include "error";

  return(deliver);
}

sub vcl_deliver {
#FASTLY deliver

include "deliver";

  return(deliver);
}

sub vcl_log {
#FASTLY log
}
