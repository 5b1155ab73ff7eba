# A complete Fastly service in front of a Headwater origin. It installs the
# snippet files in this directory unchanged, so that the tested text is what
# runs.

terraform {
  required_version = ">= 1.3"
  required_providers {
    fastly = {
      source  = "fastly/fastly"
      version = ">= 5.0"
    }
  }
}

variable "domain" {
  description = "The host name that browsers use."
  type        = string
}

variable "origin_host" {
  description = "The host name of the origin, which is also the name in its certificate."
  type        = string
}

variable "origin_port" {
  description = "The port of the origin; it speaks TLS."
  type        = number
  default     = 443
}

variable "shield" {
  description = "Code of the POP nearest to the origin. With one, the whole world is one crowd to the origin; \"\" is none."
  type        = string
  default     = ""
}

locals {
  # The Host that is sent to the origin; it omits the default port of TLS.
  origin_authority = var.origin_port == 443 ? var.origin_host : "${var.origin_host}:${var.origin_port}"

  # The name of each snippet file, and its type at Fastly.
  snippets = {
    init    = "init"
    private = "init"
    recv    = "recv"
    hash    = "hash"
    hit     = "hit"
    miss    = "miss"
    pass    = "pass"
    fetch   = "fetch"
    error   = "error"
    deliver = "deliver"
  }
}

resource "fastly_service_vcl" "headwater" {
  name = "headwater"

  domain {
    name = var.domain
  }

  backend {
    name              = "headwater"
    address           = var.origin_host
    port              = var.origin_port
    override_host     = local.origin_authority
    use_ssl           = true
    ssl_check_cert    = true
    ssl_cert_hostname = var.origin_host
    ssl_sni_hostname  = var.origin_host
    shield            = var.shield
    healthcheck       = "headwater"

    # In milliseconds. A long poll may take 20 s until its first byte; a
    # heartbeat comes every 5 s. miss.vcl and pass.vcl set the same values for
    # channel paths.
    connect_timeout       = 2000
    first_byte_timeout    = 30000
    between_bytes_timeout = 20000
    # A stream keeps its connection open for a whole segment.
    max_conn = 1000
  }

  # While the check fails, Fastly answers from error.vcl without a request to
  # the origin.
  healthcheck {
    name              = "headwater"
    host              = local.origin_authority
    path              = "/healthz"
    method            = "GET"
    expected_response = 200
    check_interval    = 2000
    timeout           = 1000
    window            = 4
    threshold         = 2
    initial           = 2
  }

  dynamic "snippet" {
    for_each = local.snippets
    content {
      name    = "headwater_${snippet.key}"
      type    = snippet.value
      content = file("${path.module}/${snippet.key}.vcl")
      # private.vcl uses the tables of init.vcl, so it is placed after it.
      priority = snippet.key == "private" ? 110 : 100
    }
  }
}

output "service_id" {
  description = "For `fastly` commands and purges."
  value       = fastly_service_vcl.headwater.id
}
