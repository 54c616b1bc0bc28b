"""A whole cluster's part on one machine: one SearchAgent, from `kubectl apply` to an answer.

Real: the manifests, kubectl, the operator's own command under its own account, the pipeline as it
was uploaded, its components, the gate, and the predictor's containers. Played: the API server
(unless `KUBEBUILDER_ASSETS` gives one), Kubeflow Pipelines, which runs the uploaded package with
`kfp.local`, and KServe with the kubelet, which start a pod's containers as processes here.
"""
