# Of every node, before Ray starts there. What each is for: serve_app/cli/run.py. The two sizes: args.max_request_bytes and
# 64 KiB. The same for whatever asks this cluster: `serve deploy`, `serve status`.
export PATH=~/venv/bin:$PATH
export RAY_AUTH_MODE=token # ~/.ray/auth_token, the same on every node
export RAY_SERVE_ENABLE_HA_PROXY=1
export RAY_SERVE_THROUGHPUT_OPTIMIZED=1
export RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE=32
export RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S=5
export RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S=1
export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.middleware:middlewares
export RAY_SERVE_GRPC_MAX_MESSAGE_SIZE=67174400
export RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH=67174400
export RAY_SERVE_BATCH_SIZE_BUCKETS=0.5,1.5,2.5,3.5,4.5,5.5,6.5,7.5,8.5,9.5,10.5,11.5,12.5,13.5,14.5,15.5,16.5,17.5,18.5,19.5,20.5,21.5,22.5,23.5,24.5,25.5,26.5,27.5,28.5,29.5,30.5,31.5,32.5,33.5,34.5,35.5,36.5,37.5,38.5,39.5,40.5,41.5,42.5,43.5,44.5,45.5,46.5,47.5,48.5,49.5,50.5,51.5,52.5,53.5,54.5,55.5,56.5,57.5,58.5,59.5,60.5,61.5,62.5,63.5,64.5,128.5,256.5,512.5,1024.5
export RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0
export MALLOC_ARENA_MAX=1
