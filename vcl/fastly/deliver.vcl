# @scope: deliver
# Reports in the standard header (RFC 9211) what the cache did, so that the
# collapsing can be checked with curl. Only the edge writes the header, because
# the value of a shield would be stored with the object and repeated to every
# client.

declare local var.headwater_status STRING;

if (fastly.ff.visits_this_service == 0) {
  # A cached failure (see fetch.vcl) has a body that is no stream. The restart
  # leads to `error` in recv.vcl, without a cache lookup and without a request.
  if (req.http.Headwater-Path == "stream" && resp.http.Headwater-Shed == "kept") {
    set req.http.Headwater-Shed = "edge";
    restart;
  }

  # The responses that the edge makes carry the CORS headers that the origin's
  # responses have. error.vcl cannot write them, because the edges cache a
  # shield's response for clients of several pages. Such a response holds no
  # secret, so every page may read it.
  if (resp.http.Headwater-Cors) {
    unset resp.http.Headwater-Cors;
    set resp.http.Access-Control-Allow-Origin = "*";
    if (req.http.Origin) {
      set resp.http.Access-Control-Allow-Origin = req.http.Origin;
      set resp.http.Access-Control-Allow-Credentials = "true";
      set resp.http.Vary = "Origin";
    }
    set resp.http.Access-Control-Expose-Headers = "Headwater-Shed, Headwater-Response, Headwater-Fresh, Retry-After";
  }
}

if (req.http.Headwater-Path && fastly.ff.visits_this_service == 0) {
  set var.headwater_status = {""headwater-edge""};
  if (fastly_info.state ~ "^(HIT-SYNTH|ERROR|BG-ERROR)") {
    set var.headwater_status = var.headwater_status "; detail=synthetic";
  } elseif (fastly_info.state ~ "^HIT-STALE") {
    set var.headwater_status = var.headwater_status "; hit; detail=stale";
  } elseif (fastly_info.state ~ "-REFRESH") {
    set var.headwater_status = var.headwater_status "; fwd=stale";
  } elseif (fastly_info.state ~ "^HIT($|-)") {
    set var.headwater_status = var.headwater_status "; hit";
  } elseif (fastly_info.state ~ "^(PASS|HITPASS)") {
    set var.headwater_status = var.headwater_status "; fwd=bypass";
  } elseif (fastly_info.state ~ "^MISS") {
    set var.headwater_status = var.headwater_status "; fwd=uri-miss";
    # The request waited for another client's request instead of making one.
    if (fastly_info.state ~ "-WAIT") {
      set var.headwater_status = var.headwater_status "; collapsed";
    }
  }

  # The header is a list, in which caches nearer to the origin come first.
  if (resp.http.Cache-Status) {
    set resp.http.Cache-Status = resp.http.Cache-Status ", " var.headwater_status;
  } else {
    set resp.http.Cache-Status = var.headwater_status;
  }

  # The object is shared, but this copy belongs to one client: a browser or
  # proxy that stored it would serve it without a token.
  if (req.http.Headwater-Access ~ "^edge ") {
    set resp.http.Cache-Control = "private, no-store";
    unset resp.http.Expires;
  }

  # These headers are for purging, not for clients.
  unset resp.http.Surrogate-Key;
  unset resp.http.Cache-Tag;
}
