// libjson-rpc-cpp on a Unix socket: what came, as JSON, and an error.
//
//	client SOCKET
#include <iostream>
#include <jsonrpccpp/client.h>
#include <jsonrpccpp/client/connectors/unixdomainsocketclient.h>

int main(int, char **argv)
{
    jsonrpc::UnixDomainSocketClient connector(argv[1]);
    jsonrpc::Client client(connector);
    Json::Value said, none(Json::objectValue), shop, list(Json::arrayValue);

    said["version"] = client.CallMethod("system.version", none);
    list.append(true);
    said["list"] = client.CallMethod("container.list", list);
    shop["container"] = "shop";
    try {
        client.CallMethod("container.inspect", shop);
    } catch (jsonrpc::JsonRpcException &problem) {
        said["error"].append(problem.GetCode());
        said["error"].append(problem.GetMessage());
    }
    std::cout << said << std::endl;
    return 0;
}
